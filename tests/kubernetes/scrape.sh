# shellcheck shell=bash
# The labels of the target that overlays/podmonitor makes, by Prometheus' own relabeling: a label of
# the target would be taken for one that a series lacks. Sourced, never run.
# shellcheck disable=SC2154  # the variables of run

promtool=$("$root/tests/prometheus/setup")/promtool
# target FILTER: prints the labels of a target as the Prometheus Operator makes it, under the
# relabelings of the overlay, changed by a filter of jq.
target() {
    jq '.[] | select(.kind == "PodMonitor").spec.podMetricsEndpoints[0] | '"$1"' | {scrape_configs: [{
            job_name: "memctl/memctl",
            honor_labels: .honorLabels,
            relabel_configs: (.relabelings | map(with_entries(.key |= gsub("(?<c>[A-Z])"; "_" + (.c | ascii_downcase))))),
            static_configs: [{targets: ["10.0.0.7:19560"], labels: {
                namespace: "memctl", pod: "memctl-x7x", container: "memctl", endpoint: "metrics",
                __meta_kubernetes_pod_node_name: "node-1"
            }}]
        }]}' "$folder/podmonitor" >"$folder/scrape.yml" &&
        "$promtool" check service-discovery --timeout=1s "$folder/scrape.yml" memctl/memctl >"$folder/targets" &&
        jq -c '.[0].labels | del(.__scrape_interval__, .__scrape_timeout__)' "$folder/targets"
}
# only_node FILTER: succeeds if the target has the label node, and none that a series may lack.
only_node() {
    local labels
    labels=$(target "$1") && printf '%s\n' "$labels" &&
        jq -e '.node == "node-1" and has("instance") and ([has("namespace", "pod", "container")] | any | not)' <<<"$labels"
}
check "podmonitor: labels of the target" only_node .
refuses '"container":"memctl"' only_node '.relabelings |= map(select(.action != "labeldrop"))'
refuses '"pod":"memctl-x7x"' only_node '(.relabelings[] | select(.action == "labeldrop").regex) = "namespace|container"'
