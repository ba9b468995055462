"""Emulated boards: the kernel driver and the hardware, as a process (docs/emulator.md)."""
