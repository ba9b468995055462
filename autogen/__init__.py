"""ctypes bindings and tables made by scripts/autogen_bindings.py; nothing here by hand."""
