# Lists what is wrong with the manifests that kustomize made of the base, an array of objects, and
# prints false if anything is. $version is that of memctl.
def kind($kind): .[] | select(.kind == $kind);
def pod: kind("DaemonSet").spec.template.spec;
def container: pod.containers[0];
def fact($name; condition): if condition then empty else $name end;
[
    fact("other objects"; map(.kind) | sort == ["ConfigMap", "DaemonSet", "Namespace", "ServiceAccount"]),
    fact("an object outside of the namespace memctl";
        all(.[]; .metadata.name == "memctl" and (.kind == "Namespace" or .metadata.namespace == "memctl"))),
    fact("the namespace doesn't allow hostPath";
        kind("Namespace").metadata.labels["pod-security.kubernetes.io/enforce"] == "privileged"),
    fact("a token"; [kind("ServiceAccount"), pod | .automountServiceAccountToken] == [false, false]),
    fact("another service account"; pod.serviceAccountName == kind("ServiceAccount").metadata.name),
    fact("the selector doesn't match the pods"; kind("DaemonSet") | .spec
        | .selector.matchLabels as $labels | .template.metadata.labels | contains($labels)),
    fact("namespaces of the host"; pod | [.hostNetwork, .hostPID, .hostIPC] == [null, null, null]),
    fact("not one container"; pod | (.containers | length) == 1 and .initContainers == null),
    fact("another security context"; pod.securityContext == null and container.securityContext == {
        runAsUser: 0,
        readOnlyRootFilesystem: true,
        allowPrivilegeEscalation: false,
        capabilities: {drop: ["ALL"], add: ["IPC_LOCK", "SYS_RESOURCE", "DAC_OVERRIDE"]},
        seccompProfile: {type: "RuntimeDefault"}
    }),
    fact("other resources";
        container.resources == {requests: {cpu: "10m", memory: "16Mi"}, limits: {memory: "32Mi"}}),
    fact("not on every node"; pod
        | .tolerations == [{operator: "Exists"}] and .nodeSelector == {"kubernetes.io/os": "linux"}),
    fact("may be evicted"; pod.priorityClassName == "system-node-critical"),
    fact("an update of all nodes at once"; kind("DaemonSet").spec.updateStrategy
        == {type: "RollingUpdate", rollingUpdate: {maxUnavailable: "10%"}}),
    fact("another time to stop in"; pod.terminationGracePeriodSeconds == 10),
    fact("variables of services"; pod.enableServiceLinks == false),
    fact("another image"; container.image == "memctl:" + $version),
    fact("other arguments"; container | .command == null and .args == ["watch", "--config=/etc/memctl/watch.toml",
        "--follow-config", "--json", "--metrics-listen=0.0.0.0:19560"]),
    fact("another port"; container.ports == [{name: "metrics", containerPort: 19560}]),
    fact("no probe of the port"; container as $memctl | $memctl.livenessProbe.httpGet
        | .path == "/healthz" and .port == $memctl.ports[0].name),
    # The kernel's files are the only ones that can be written to.
    fact("other mounts"; [container.volumeMounts[] | [.mountPath, .readOnly // false, has("subPath")]] | sort == [
        ["/etc/memctl", true, false],
        ["/sys/fs/cgroup", false, false],
        ["/var/log/containers", true, false],
        ["/var/log/pods", true, false]
    ]),
    fact("a folder of the host at another place"; pod as $pod | all($pod.volumes[] | select(.hostPath);
        . as $volume | .hostPath.type == "Directory" and any($pod.containers[0].volumeMounts[];
            .name == $volume.name and .mountPath == $volume.hostPath.path))),
    fact("a volume without its mount"; pod
        | (.volumes | map(.name) | sort) == (.containers[0].volumeMounts | map(.name) | sort)),
    fact("the rules aren't mounted"; kind("ConfigMap") as $rules | [pod.volumes[] | .configMap.name // empty]
        == [$rules.metadata.name] and ($rules.data | keys) == ["watch.toml"])
] | if . == [] then true else ., false end
