"""The fields of a Deployment and a Service, so that a misspelled one is found without a cluster.

Source: https://kubernetes.io/docs/reference/kubernetes-api, v1.32. Fields that dlzoo does not write
are listed by name, and their values are left to the cluster to check.
"""

from __future__ import annotations

from typing import Any

from dlzoo.runtime.deploy.structure import ANY, DNS_LABEL, Text

_PORT = (int, str)


def _others(names: str) -> dict[str, Any]:
    return {f"{name}?": ANY for name in names.split()}


_METADATA = {
    "name": DNS_LABEL,
    "namespace?": DNS_LABEL,
    "labels?": {"*": str},
    "annotations?": {"*": str},
}
_PROBE = {
    "httpGet?": {"path": Text(r"/\S*", "a path that begins with /"), "port": _PORT}
    | _others("host scheme httpHeaders"),
    "initialDelaySeconds?": int,
    "periodSeconds?": int,
    "timeoutSeconds?": int,
    "successThreshold?": int,
    "failureThreshold?": int,
    **_others("exec grpc tcpSocket terminationGracePeriodSeconds"),
}
_CONTAINER = {
    "name": DNS_LABEL,
    "image": Text(r"\S+", "an image's name"),
    "imagePullPolicy?": frozenset({"Always", "IfNotPresent", "Never"}),
    "command?": [str],
    "args?": [str],
    "env?": [{"name": str, "value?": str, "valueFrom?": ANY}],
    "ports?": [
        {"containerPort": int, "name?": DNS_LABEL, "protocol?": str}
        | _others("hostIP hostPort")
    ],
    "resources?": {"requests?": {"*": str}, "limits?": {"*": str}, "claims?": ANY},
    "startupProbe?": _PROBE,
    "livenessProbe?": _PROBE,
    "readinessProbe?": _PROBE,
    "securityContext?": {
        "runAsNonRoot?": bool,
        "runAsUser?": int,
        "readOnlyRootFilesystem?": bool,
        "allowPrivilegeEscalation?": bool,
        "capabilities?": {"drop?": [str], "add?": [str]},
        **_others(
            "runAsGroup privileged procMount seLinuxOptions seccompProfile windowsOptions"
        ),
        **_others("appArmorProfile"),
    },
    **_others("envFrom lifecycle resizePolicy restartPolicy stdin stdinOnce tty"),
    **_others("terminationMessagePath terminationMessagePolicy"),
    **_others("volumeDevices volumeMounts workingDir"),
}
_POD = {
    "containers": [_CONTAINER],
    "terminationGracePeriodSeconds?": int,
    "automountServiceAccountToken?": bool,
    "serviceAccountName?": str,
    "securityContext?": {"runAsNonRoot?": bool, "runAsUser?": int, "*": ANY},
    **_others("activeDeadlineSeconds affinity dnsConfig dnsPolicy enableServiceLinks"),
    **_others(
        "ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname"
    ),
    **_others("imagePullSecrets initContainers nodeName nodeSelector os overhead"),
    **_others("preemptionPolicy priority priorityClassName readinessGates resourceClaims"),
    **_others("resources restartPolicy runtimeClassName schedulerName schedulingGates"),
    **_others("serviceAccount setHostnameAsFQDN shareProcessNamespace subdomain tolerations"),
    **_others("topologySpreadConstraints volumes"),
}
DEPLOYMENT = {
    "apiVersion": frozenset({"apps/v1"}),
    "kind": frozenset({"Deployment"}),
    "metadata": _METADATA,
    "spec": {
        "replicas?": int,
        "selector": {"matchLabels": {"*": str}, "matchExpressions?": ANY},
        "template": {
            "metadata": {"labels": {"*": str}, "annotations?": {"*": str}},
            "spec": _POD,
        },
        **_others(
            "minReadySeconds paused progressDeadlineSeconds revisionHistoryLimit strategy"
        ),
    },
}
SERVICE = {
    "apiVersion": frozenset({"v1"}),
    "kind": frozenset({"Service"}),
    "metadata": _METADATA,
    "spec": {
        "selector": {"*": str},
        "ports": [
            {"port": int, "name?": DNS_LABEL, "targetPort?": _PORT}
            | _others("appProtocol nodePort protocol")
        ],
        "type?": frozenset({"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}),
        **_others(
            "allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalName"
        ),
        **_others(
            "externalTrafficPolicy healthCheckNodePort internalTrafficPolicy ipFamilies"
        ),
        **_others("ipFamilyPolicy loadBalancerClass loadBalancerIP loadBalancerSourceRanges"),
        **_others("publishNotReadyAddresses sessionAffinity sessionAffinityConfig"),
        **_others("trafficDistribution"),
    },
}
