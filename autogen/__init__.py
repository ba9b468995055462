"""ctypes bindings generated from kernel headers; nothing here is written by hand."""
