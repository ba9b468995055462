"""The compiled half of this floor: waits, submission and the processor's command processor."""
