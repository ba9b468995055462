"""AMD's kernel interface and engines, emulated: /dev/kfd, PM4, SDMA, events."""
