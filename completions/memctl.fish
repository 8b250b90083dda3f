# fish completion for memctl: asks the binary, so it can't drift.
MEMCTL_COMPLETE=fish memctl | source
