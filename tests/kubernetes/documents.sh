# shellcheck shell=bash
# What docs/kubernetes.md shows is true: its kustomizations are built, its rules are valid, and its
# expressions of Prometheus have a result. Sourced, never run.
# shellcheck disable=SC2154  # the variables of run

page=$root/docs/kubernetes.md
# indented PATTERN: prints the block of the page that has a line like this, without its indentation.
indented() {
    awk -v pattern="$1" '
        /^    / { block = block substr($0, 5) "\n"; next }
        /^$/ && block != "" { block = block "\n"; next }
        block ~ pattern { printf "%s", block; exit }
        { block = "" }' "$page"
}

# Kustomize reads nothing outside of a kustomization's folder, except for other kustomizations.
mkdir -p "$folder/own/memctl/contrib"
cp -r "$contrib" "$folder/own/memctl/contrib/"
indented 'kind: Kustomization' >"$folder/own/kustomization.yaml"
check "docs: the kustomization" build "$folder/own" "$folder/documents"
image() { jq -e --arg image "$1" 'any(.. | .image? // empty; . == $image)' "$folder/documents"; }
check "docs: another image" image "registry.example/memctl:$version"

indented configMapGenerator >>"$folder/own/kustomization.yaml"
printf '# of my own\n' >"$folder/own/watch.toml"
check "docs: the kustomization with rules" build "$folder/own" "$folder/documents"
rules() { jq -e 'any(.[]; .data["watch.toml"] == "# of my own\n" and .metadata.name == "memctl")' "$folder/documents"; }
check "docs: other rules" rules

# own NAME PART: makes a folder of one's own that uses a part of contrib/kubernetes.
own() {
    mkdir -p "$folder/$1/memctl/contrib"
    cp -r "$contrib" "$folder/$1/memctl/contrib/"
    printf '%s\n' 'kind: Kustomization' "resources: [memctl/contrib/kubernetes/$2]" >"$folder/$1/kustomization.yaml"
}
# daemonset FILTER: what a filter of jq says of the DaemonSet.
daemonset() { jq -e '.[] | select(.kind == "DaemonSet") | '"$1" "$folder/documents"; }
# namespaces NAME: every object is in the namespace.
namespaces() { jq -e --arg name "$1" 'all(.[].metadata; (.namespace // .name) == $name)' "$folder/documents"; }

own combined overlays/podmonitor
indented 'resources: .*podmonitor' >"$folder/combined/kustomization.yaml"
check "docs: combined overlays" build "$folder/combined" "$folder/documents"
check "docs: combined overlays: a schema" validate "$folder/documents"
check "docs: combined overlays: a dry run" daemonset '.spec.template.spec.containers[0].args[-1] == "--dry-run"'
monitor() { jq -e 'any(.[]; .kind == "PodMonitor" and .metadata.labels.release != null)' "$folder/documents"; }
check "docs: combined overlays: a PodMonitor" monitor
check "docs: combined overlays: the namespace" namespaces memctl
check "docs: combined overlays: the image" image "registry.example/memctl:$version"

# The patches that share the nodes between two folders.
own dry-run-pool overlays/dry-run
indented NotIn >>"$folder/dry-run-pool/kustomization.yaml"
check "docs: nodes of the dry run" build "$folder/dry-run-pool" "$folder/documents"
check "docs: nodes of the dry run: a schema" validate "$folder/documents"
check "docs: nodes of the dry run: not of the pool" daemonset '.spec.template.spec.affinity | tostring | contains("NotIn")'
own live-pool base
indented 'namespace: memctl-live' >>"$folder/live-pool/kustomization.yaml"
indented configMapGenerator >>"$folder/live-pool/kustomization.yaml"
printf '# of my own\n' >"$folder/live-pool/watch.toml"
check "docs: nodes of the pool" build "$folder/live-pool" "$folder/documents"
check "docs: nodes of the pool: a schema" validate "$folder/documents"
check "docs: nodes of the pool: their label" daemonset '.spec.template.spec.nodeSelector.memctl == "live"'
check "docs: nodes of the pool: the namespace" namespaces memctl-live
check "docs: nodes of the pool: other rules" rules

# The example of rules, appended to those of the base. memctl reads a file before anything else, so a
# mistake is found on cgroup v1 as well, where the check then fails by another error.
memctl=${MEMCTL_BIN:-$root/target/x86_64-unknown-linux-gnu/release/memctl}
[ -x "$memctl" ] || die "$memctl: not an executable: run \`eval \"\$(tests/vm/build)\"\` first, and export MEMCTL_BIN"
# parses FILE: succeeds if there is no mistake in a file of rules.
parses() {
    local output
    output=$("$memctl" check --config "$1" 2>&1) && return
    printf '%s\n' "$output"
    [[ $output == *"the memory controller is on cgroup v1"* ]]
}
{ cat "$contrib/base/watch.toml"; echo; indented 'pod:db/'; } >"$folder/rules.toml"
names=$(grep '^name = ' "$folder/rules.toml" | paste -sd' ')
[ "$names" = 'name = "burstable" name = "besteffort" name = "kube-system" name = "db" name = "web"' ] || fail "docs: other rules: $names"
check "docs: the example of rules" parses "$folder/rules.toml"
sed 's/^keep/kep/' "$folder/rules.toml" >"$folder/mistaken.toml"
refuses 'unknown key "kep"' parses "$folder/mistaken.toml"

# Series as memctl and kube-state-metrics have them, of one container.
pod='namespace="batch", pod="web-0"'
{
    cat <<EOF
rule_files: []
tests:
  - interval: 1m
    input_series:
      - {series: 'memctl_cgroup_working_set_bytes{$pod, container="app", cgroup="/a", rule="r", node="n"}', values: 30+0x5}
      - {series: 'memctl_cgroup_suggested_limit_bytes{$pod, container="app", cgroup="/a", rule="r", node="n"}', values: 40+0x5}
      - {series: 'memctl_cgroup_net_saved_bytes{$pod, container="app", cgroup="/a", rule="r", node="n"}', values: 10+0x5}
      - {series: 'kube_pod_container_resource_limits{$pod, container="app", uid="u", resource="memory", unit="byte"}', values: 120+0x5}
      - {series: 'kube_pod_container_resource_limits{$pod, container="app", uid="u", resource="cpu", unit="core"}', values: 1+0x5}
      - {series: 'kube_pod_owner{$pod, uid="u", owner_kind="StatefulSet", owner_name="web"}', values: 1+0x5}
    promql_expr_test:
EOF
    awk '/^```promql$/ { print "      - expr: |-"; inside = 1; next }
        /^```$/ && inside { inside = 0; print "        eval_time: 5m\n        exp_samples: [SAMPLE]" }
        inside { print "          " $0 }' "$page"
} >"$folder/joins.yml"
samples=("{labels: '{$pod, container=\"app\"}', value: 0.25}" "{labels: '{$pod, container=\"app\"}', value: 80}"
    "{labels: '{namespace=\"batch\", owner_name=\"web\"}', value: 10}")
for sample in "${samples[@]}"; do
    awk -v sample="$sample" '!done && sub(/SAMPLE/, sample) { done = 1 } { print }' "$folder/joins.yml" >"$folder/filled.yml"
    mv "$folder/filled.yml" "$folder/joins.yml"
done
[ "$(grep -c 'expr: ' "$folder/joins.yml")" = "${#samples[@]}" ] || fail "docs: not ${#samples[@]} expressions"
check "docs: expressions" "$("$root/tests/prometheus/setup")/promtool" test rules "$folder/joins.yml"
