"""AMD GPUs through their kernel driver, /dev/kfd: rings, packets and doorbells, nothing between."""
