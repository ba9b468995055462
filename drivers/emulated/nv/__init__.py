"""NVIDIA's kernel driver and engines, emulated: nvidiactl, nvidiaN, nvidia-uvm, channels."""
