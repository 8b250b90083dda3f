//! Text after the long help: exit status and examples.

/// Examples of memctl itself.
pub const AFTER: &str = "\
Exit status:
  0    success
  1    failure
  2    usage error
  3    the kernel reclaimed less than requested
  124  timeout
  On SIGINT and SIGTERM, memctl prints its report and dies by that signal.

Examples:
  memctl reclaim /sys/fs/cgroup/app 10M
  memctl reclaim --to 1G system.slice/nginx.service

See 'memctl COMMAND --help' for the options of a command.";

/// Examples of `reclaim`.
pub const AFTER_RECLAIM: &str = "\
Exit status:
  0    the request was met; with max also if nothing more could be reclaimed,
       or not at --max-cost
  1    failure, or the cgroup was removed meanwhile
  2    usage error
  3    the kernel reclaimed less than requested, or --max-pressure or --max-cost
       stopped the request
  124  --timeout expired
  On SIGINT and SIGTERM, memctl prints the report of what was done and dies by
  that signal; a second signal kills it at once.

Examples:
  memctl reclaim app 10M                 Reclaim 10 MiB of the coldest memory
  memctl reclaim app 25% --type file     Reclaim page cache, 25% of the usage
  memctl reclaim --to 1G app             Reclaim down to a usage of 1 GiB
  memctl reclaim app max --timeout 10s   Reclaim all that is possible in 10 s
  memctl reclaim app 1G --json           Print the report for a script
  memctl reclaim 'batch/*' db 10M        Reclaim 10 MiB from each cgroup
  memctl reclaim --total 2G 'batch/*'    Reclaim 2 GiB in all, cheapest first
  memctl reclaim node:1 1G               Reclaim from NUMA node 1";

/// Examples of `watch`.
pub const AFTER_WATCH: &str = "\
Exit status:
  0    stopped by SIGTERM or --duration; the summary was printed
  1    failure
  2    usage error
  On SIGINT, memctl prints the summary and dies by that signal.

Examples:
  memctl watch app --headroom 10%               Keep 10% of the limit free
  memctl watch 'batch/*' --headroom 64M         Watch all matches, new ones too
  memctl watch app --keep 1G --type file        Limit page cache without kills
  memctl watch app --pressure 0.1%              Reclaim idle memory
  memctl watch app --estimate --duration 15m    Estimate the working set
  memctl watch --config /etc/memctl/watch.toml  Watch a host by rules";

/// Examples of `check`.
pub const AFTER_CHECK: &str = "\
Exit status:
  0    reclaim works; with --config, the file is valid
  1    it doesn't; the output says why and what to do
  2    usage error

Examples:
  memctl check                                  Check this host
  memctl check app --write                      Also reclaim 1 MiB from app
  memctl check --config /etc/memctl/watch.toml  Check rules for a host";

/// Examples of `stat`.
pub const AFTER_STAT: &str = "\
Exit status:
  0    every cgroup was read
  1    a cgroup could not be read; standard error names it
  2    usage error

Examples:
  memctl stat                            List the cgroups of this host
  memctl stat -r --sort reclaimable      List the tree, by reclaimable memory
  memctl stat system.slice/db.service    Show everything about one cgroup
  memctl stat -i 2s 'batch/*'            Update every 2 s and show rates
  memctl stat --json -r | jq .cgroup     Print JSON for a script";

/// Examples of `plot`.
pub const AFTER_PLOT: &str = "\
Exit status:
  0    the picture was written
  1    the record could not be read or parsed, or the picture not be written
  2    usage error

Examples:
  memctl watch app --headroom 10% --json >app.json    Record a watch
  memctl plot app.json -o app.svg                     Draw the record
  memctl plot host.json -o db.svg --cgroup db.slice   Draw one cgroup only";
