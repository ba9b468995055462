"""The compiler floor: one expression graph -> kernel -> machine code. Opens no device."""
