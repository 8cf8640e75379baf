"""One file per module; tiny models and a scripted server that `faults` uses too."""
