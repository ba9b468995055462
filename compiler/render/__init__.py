"""Renderers: a linear kernel (`compiler/linearise.py`) becomes source text for one compiler."""
