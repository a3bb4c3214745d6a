"""The pure core: values and decisions. No clock, no chance, no system calls, no await."""
