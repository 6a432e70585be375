{{/* Name of the chart, in labels and in the names of objects. */}}
{{- define "stream-notifier.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimAll "-" }}
{{- end }}

{{/* Name of every object: release and chart, or only the release if its name contains the chart's. */}}
{{- define "stream-notifier.fullname" -}}
{{- $name := include "stream-notifier.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimAll "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimAll "-" }}
{{- end }}
{{- end }}

{{- define "stream-notifier.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{/* Name of the ServiceAccount that the Pod uses. */}}
{{- define "stream-notifier.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "stream-notifier.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* Labels by which the Deployment selects its Pods. Kubernetes does not let them change. */}}
{{- define "stream-notifier.selectorLabels" -}}
app.kubernetes.io/name: {{ include "stream-notifier.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels that are the same in every release of this version of the chart. */}}
{{- define "stream-notifier.versionLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimAll "-_." | quote }}
{{- end }}

{{/* Labels of every object. The chart's own labels override commonLabels. */}}
{{- define "stream-notifier.labels" -}}
{{ merge (include "stream-notifier.selectorLabels" . | fromYaml) (include "stream-notifier.versionLabels" . | fromYaml) .Values.commonLabels | toYaml }}
{{- end }}

{{- define "stream-notifier.image" -}}
{{- $registry := .Values.global.imageRegistry | default .Values.image.registry }}
{{- $version := printf ":%s" (.Values.image.tag | default .Chart.AppVersion) }}
{{- with .Values.image.digest }}
{{- $version = printf "@%s" . }}
{{- end }}
{{- print (list $registry .Values.image.repository | compact | join "/") $version }}
{{- end }}

{{/* References to the Secrets of both lists. A parent chart can have a list of names. */}}
{{- define "stream-notifier.imagePullSecrets" -}}
{{- $secrets := list }}
{{- range concat .Values.global.imagePullSecrets .Values.imagePullSecrets }}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) }}
{{- end }}
{{- $secrets | uniq | toYaml }}
{{- end }}

{{- define "stream-notifier.args" -}}
- run
- {{ printf "--log-format=%s" .Values.logFormat | quote }}
- {{ printf "--get-records-per-second=%d" (int64 .Values.getRecordsPerSecond) | quote }}
- {{ printf "--posts-per-second=%d" (int64 .Values.postsPerSecond) | quote }}
{{- with .Values.namespaces }}
- {{ printf "--namespaces=%s" (join "," .) | quote }}
{{- end }}
{{- with .Values.aws.operatorIdentity.namespaces }}
- {{ printf "--operator-identity-namespaces=%s" (join "," .) | quote }}
{{- end }}
{{- with .Values.allowedWebSocketDomains }}
- {{ printf "--allowed-websocket-domains=%s" (join "," .) | quote }}
{{- end }}
{{- with .Values.aws.gatewayEndpoint }}
- {{ printf "--gateway-endpoint=%s" . | quote }}
{{- end }}
{{- end }}

{{- define "stream-notifier.env" -}}
{{- with .Values.logLevel }}
- name: RUST_LOG
  value: {{ . | quote }}
{{- end }}
{{- with .Values.aws.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.aws.endpointUrl }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- if .Values.caBundle.configMapName }}
- name: AWS_CA_BUNDLE
  value: /etc/stream-notifier/ca-bundle/ca.crt
{{- end }}
{{- with .Values.proxy }}
{{- with .httpProxy }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .httpsProxy }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- if or .httpProxy .httpsProxy }}
{{- /* The API server, cluster domains, and the credential endpoints of EC2 and EKS Pod Identity. The operator
       compares addresses without brackets. */}}
- name: NO_PROXY
  value: {{ list "$(KUBERNETES_SERVICE_HOST)" ".svc" ".cluster.local" "169.254.169.254" "169.254.170.23" "fd00:ec2::23" .noProxy | compact | join "," | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Rejects arguments and variables that the chart sets, because a later one would override or break it. */}}
{{- define "stream-notifier.checkExtras" -}}
{{- $values := dict
    "--allowed-websocket-domains" "allowedWebSocketDomains"
    "--gateway-endpoint" "aws.gatewayEndpoint"
    "--get-records-per-second" "getRecordsPerSecond"
    "--log-format" "logFormat"
    "--namespaces" "namespaces"
    "--operator-identity-namespaces" "aws.operatorIdentity.namespaces"
    "--posts-per-second" "postsPerSecond"
}}
{{- $extras := list }}
{{- range .Values.extraArgs }}
{{- $extras = append $extras (list "extraArgs" . (splitList "=" . | first)) }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if hasPrefix "STREAM_NOTIFIER_" .name }}
{{- $extras = append $extras (list "extraEnv" .name (.name | replace "STREAM_NOTIFIER_" "--" | replace "_" "-" | lower)) }}
{{- end }}
{{- end }}
{{- range $extras }}
{{- $list := index . 0 }}
{{- $extra := index . 1 }}
{{- $flag := index . 2 }}
{{- if eq $flag "--bind-address" }}
{{- fail (printf "%s: remove %s; the probes use port 8080, and a Pod has its own ports" $list $extra) }}
{{- end }}
{{- with get $values $flag }}
{{- fail (printf "%s: remove %s; set the value %s instead" $list $extra .) }}
{{- end }}
{{- end }}
{{- $names := list }}
{{- range concat (include "stream-notifier.env" . | fromYamlArray) .Values.extraEnv }}
{{- if has .name $names }}
{{- fail (printf "extraEnv: remove %s; it is set already, by another value or entry" .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}
