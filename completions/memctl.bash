# bash completion for memctl: asks the binary, so it can't drift.
source <(MEMCTL_COMPLETE=bash memctl)
