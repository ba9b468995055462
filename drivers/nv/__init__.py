"""NVIDIA GPUs through their kernel driver's ioctls: channels, methods and doorbells, no library."""
