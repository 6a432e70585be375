{{/* Name of every object: release and chart, or only the release if its name contains the chart's. */}}
{{- define "stream-notifier.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
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
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of every object. The chart's own labels override commonLabels. */}}
{{- define "stream-notifier.labels" -}}
{{ merge (include "stream-notifier.ownLabels" . | fromYaml) .Values.commonLabels | toYaml }}
{{- end }}

{{- define "stream-notifier.ownLabels" -}}
{{ include "stream-notifier.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}
