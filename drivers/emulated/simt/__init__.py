"""Machine code of GPUs run by translation to the processor's: see docs/emulator.md."""
