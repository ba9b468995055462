"""The driver floor: queues, Points and memory of every device, usable without `tinyhw`."""
