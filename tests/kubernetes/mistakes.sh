# shellcheck shell=bash
# Mistakes that the checks of `run` must find. Sourced, never run.
# shellcheck disable=SC2154  # the variables of run

# change FILTER: writes the objects of the base, changed by a filter of jq, as $mistake.
mistake=$folder/mistake
change() {
    jq -c 'def daemonset(change): (.[] | select(.kind == "DaemonSet").spec) |= change;
        def pod(change): daemonset(.template.spec |= change);
        def memctl(change): pod(.containers[0] |= change);
        def named($kind; change): (.[] | select(.kind == $kind)) |= change; '"$1" "$folder/base" >"$mistake"
    ! cmp -s <(jq -S . "$mistake") <(jq -S . "$folder/base") || fail "$1: changes nothing"
}
# no_schema WORDS FILTER: makes a mistake that no schema allows.
no_schema() { change "$2" && refuses "$1" validate "$mistake"; }
# no_fact WORDS FILTER: makes a mistake that a schema allows, and the facts don't.
no_fact() { change "$2" && check "$1: no schema allows this" validate "$mistake" 1.33 && refuses "$1" facts "$mistake"; }

no_schema readOnlyRootFileSystem 'memctl(.securityContext |= with_entries(.key |= sub("Filesystem"; "FileSystem")))'
no_schema tolerationz 'pod(.tolerationz = .tolerations)'
no_schema terminationGracePeriodSeconds 'pod(.terminationGracePeriodSeconds = "10")'
no_schema automountToken 'named("ServiceAccount"; .automountToken = false)'
no_schema "Couldn't find schema" 'named("DaemonSet"; .kind = "DemonSet")'

no_fact "other objects" '. + [.[] | select(.kind == "ServiceAccount")]'
no_fact "outside of the namespace" 'named("ConfigMap"; .metadata.namespace = "default")'
no_fact "doesn't allow hostPath" 'named("Namespace"; .metadata.labels[] = "baseline")'
no_fact "a token" 'pod(.automountServiceAccountToken = true)'
no_fact "a token" 'named("ServiceAccount"; del(.automountServiceAccountToken))'
no_fact "another service account" 'pod(.serviceAccountName = "default")'
no_fact "the selector" 'daemonset(.selector.matchLabels.tier = "node")'
no_fact "namespaces of the host" 'pod(.hostPID = true)'
no_fact "not one container" 'pod(.containers += [{name: "more", image: "more"}])'
no_fact "security context" 'memctl(.securityContext.capabilities.add += ["SYS_ADMIN"])'
no_fact "security context" 'memctl(.securityContext.capabilities.add -= ["IPC_LOCK"])'
no_fact "security context" 'memctl(del(.securityContext.capabilities.drop))'
no_fact "security context" 'memctl(.securityContext.readOnlyRootFilesystem = false)'
no_fact "security context" 'memctl(.securityContext.privileged = true)'
no_fact "security context" 'pod(.securityContext.fsGroup = 1)'
no_fact "other resources" 'memctl(.resources.limits.cpu = "100m")'
no_fact "other resources" 'memctl(del(.resources.limits))'
no_fact "not on every node" 'pod(del(.tolerations))'
no_fact "may be evicted" 'pod(del(.priorityClassName))'
no_fact "an update of all" 'daemonset(.updateStrategy.rollingUpdate.maxUnavailable = "100%")'
no_fact "another time to stop" 'pod(del(.terminationGracePeriodSeconds))'
no_fact "variables of services" 'pod(del(.enableServiceLinks))'
no_fact "another image" 'memctl(.image = "memctl:latest")'
no_fact "other arguments" 'memctl(.args -= ["--follow-config"])'
no_fact "another port" 'memctl(.ports[0].hostPort = 19560)'
no_fact "no probe" 'memctl(.livenessProbe.httpGet.port = "metric")'
no_fact "no probe" 'memctl(del(.livenessProbe))'
no_fact "other mounts" 'memctl((.volumeMounts[] | select(.name == "pods")) |= del(.readOnly))'
no_fact "other mounts" 'memctl((.volumeMounts[] | select(.name == "config")).subPath = "watch.toml")'
no_fact "at another place" 'pod((.volumes[] | select(.name == "cgroup")).hostPath.path = "/sys/fs")'
no_fact "without its mount" 'pod(.volumes += [{name: "tmp", emptyDir: {}}])'
no_fact "the rules" 'named("ConfigMap"; .data = {"rules.toml": .data["watch.toml"]})'

# An overlay that does more than it says.
jq -c '(.[] | select(.kind == "DaemonSet").spec.template.spec.hostNetwork) = true' "$folder/dry-run" >"$mistake"
refuses '"hostNetwork": true' compare dry-run "$mistake"
# A change that finds nothing to change.
mkdir -p "$folder/wrong/overlays"
cp -r "$contrib/base" "$folder/wrong/"
cp -r "$contrib/overlays/textfile" "$folder/wrong/overlays/"
sed -i 's/19560/19561/' "$folder/wrong/base/daemonset.yaml"
refuses "test failed" build "$folder/wrong/overlays/textfile" "$mistake"
