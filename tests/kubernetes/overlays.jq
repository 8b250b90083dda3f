# Makes of the base, an array of objects, what an overlay is to be. $base has the objects of the base,
# and the input is the overlay. Prints true if they are the same, or else both, and false.
def container(change): (.[] | select(.kind == "DaemonSet").spec.template.spec.containers[0]) |= change;
def pod(change): (.[] | select(.kind == "DaemonSet").spec.template.spec) |= change;
# Rules without comments.
def rules(change): (.[] | select(.kind == "ConfigMap").data["watch.toml"]) |= (gsub("(?m)^#.*\n"; "") | change);
def expected:
    if $overlay == "dry-run" then container(.args += ["--dry-run"])
    elif $overlay == "textfile" then
        container(.args |= map(sub("^--metrics-listen=.*"; "--metrics=/textfile/memctl.prom"))
            | del(.ports, .livenessProbe)
            | .volumeMounts += [{name: "textfile", mountPath: "/textfile"}])
        | pod(.volumes += [{
            name: "textfile",
            hostPath: {path: "/var/lib/node_exporter/textfile_collector", type: "Directory"}
        }])
    elif $overlay == "selinux" then container(.securityContext.seLinuxOptions = {type: "spc_t"})
    elif $overlay == "ancestors" then
        rules(sub("headroom = \"10%\"\n"; "headroom = \"10%\"\nancestors = true\n"))
    elif $overlay == "podmonitor" then . + [{
        apiVersion: "monitoring.coreos.com/v1",
        kind: "PodMonitor",
        metadata: {name: "memctl", namespace: "memctl", labels: {"app.kubernetes.io/name": "memctl"}},
        spec: {
            # Those of the base, so that the pods are found.
            selector: (.[] | select(.kind == "DaemonSet").spec.selector),
            podMetricsEndpoints: [{
                port: (.[] | select(.kind == "DaemonSet").spec.template.spec.containers[0].ports[0].name),
                path: "/metrics",
                interval: "30s",
                honorLabels: true,
                relabelings: [
                    {sourceLabels: ["__meta_kubernetes_pod_node_name"], targetLabel: "node"},
                    {action: "labeldrop", regex: "namespace|pod|container"}
                ]
            }]
        }
    }]
    else error("\($overlay): no such overlay here") end;
def comparable: if $overlay == "ancestors" then rules(.) else . end | sort_by(.kind);
($base | expected | comparable) as $expected | comparable
    | if . == $expected then true else {is: ., expected: $expected}, false end
