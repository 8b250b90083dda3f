//! What stands below the long help: exit statuses and examples.

/// Of all of it.
pub const AFTER: &str = "\
Exit status:
  0 reached, 1 failed, 2 usage, 3 the kernel reclaimed less than was asked,
  124 timed out; on SIGINT and SIGTERM memctl reports and dies by that signal

Examples:
  memctl reclaim /sys/fs/cgroup/app 10M
  memctl reclaim --to 1G system.slice/nginx.service

Each subcommand tells more with --help.";

/// Of `reclaim`.
pub const AFTER_RECLAIM: &str = "\
Exit status:
  0    reached; with max also when nothing more was to be had (at that price)
  1    failed, or the cgroup was removed meanwhile
  2    the command line was not understood
  3    the kernel reclaimed less than was asked, or pressure or cost stopped it
  124  the timeout ran out
  On SIGINT and SIGTERM the report of what was done is printed and memctl dies
  by that signal; a second one kills it at once.

Examples:
  memctl reclaim app 10M                 ten MiB of whatever is coldest
  memctl reclaim app 25% --type file     a quarter of its usage, from page cache
  memctl reclaim --to 1G app             down to a usage of 1 GiB
  memctl reclaim app max --timeout 10s   all that goes within ten seconds
  memctl reclaim app 1G --json           for a script
  memctl reclaim 'batch/*' db 10M        ten MiB of each
  memctl reclaim --total 2G 'batch/*'    2 GiB in all, cheapest first
  memctl reclaim node:1 1G               from all that is on NUMA node 1";

/// Of `watch`.
pub const AFTER_WATCH: &str = "\
Exit status:
  0    told to stop, by SIGTERM or --duration; a summary was printed
  1    failed
  2    the command line was not understood
  On SIGINT the summary is printed and memctl dies by that signal.

Examples:
  memctl watch app --headroom 10%               a tenth of its limit stays free
  memctl watch 'batch/*' --headroom 64M         whatever is there and will come
  memctl watch app --keep 1G --type file        a limit for its cache that kills nobody
  memctl watch app --pressure 0.1%              what isn't in use leaves
  memctl watch app --estimate --duration 5m     how small could its limit be?
  memctl watch --config /etc/memctl/watch.toml  rules for a host";

/// Of `check`.
pub const AFTER_CHECK: &str = "\
Exit status:
  0    reclaim will work; with --config, the file can be followed
  1    it will not; the lines say why, and what to do
  2    the command line was not understood

Examples:
  memctl check
  memctl check app --write
  memctl check --config /etc/memctl/watch.toml";

/// Of `stat`.
pub const AFTER_STAT: &str = "\
Exit status:
  0    every cgroup was read
  1    one could not be; standard error names it
  2    the command line was not understood

Examples:
  memctl stat                            what the host's cgroups use
  memctl stat -r --sort reclaimable      the tree, by what could be had
  memctl stat system.slice/db.service    a full page on one
  memctl stat -i 2s 'batch/*'            every two seconds, with rates
  memctl stat --json -r | jq .cgroup     for a script";

/// Of `plot`.
pub const AFTER_PLOT: &str = "\
Exit status:
  0    the picture was written
  1    the record could not be read, or the picture not be written
  2    the command line was not understood

Examples:
  memctl watch app --headroom 10% --json >app.json
  memctl plot app.json -o app.svg
  memctl plot host.json -o db.svg --cgroup db.slice";
