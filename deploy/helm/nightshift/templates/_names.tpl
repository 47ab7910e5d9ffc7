{{- define "nightshift.name" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{ ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "nightshift.selector" -}}
app.kubernetes.io/name: nightshift
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "nightshift.labels" -}}
{{ include "nightshift.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "nightshift.image" -}}
{{- $image := .Values.image -}}
{{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end -}}

{{/* The namespace in which Jobs are made. */}}
{{- define "nightshift.jobs" -}}
{{ .Values.cacheJob.namespace | default .Release.Namespace }}
{{- end -}}

{{/* Whether the engine may act: "true" or "". */}}
{{- define "nightshift.acts" -}}
{{- if has .Values.mode (list "approve" "auto") }}true{{ end -}}
{{- end -}}

{{- define "nightshift.account.read" -}}
{{ .Values.serviceAccounts.read.name | default (printf "%s-read" (include "nightshift.name" .)) }}
{{- end -}}

{{- define "nightshift.account.write" -}}
{{ .Values.serviceAccounts.write.name | default (printf "%s-write" (include "nightshift.name" .)) }}
{{- end -}}

{{/* The account that the engine runs under. */}}
{{- define "nightshift.account" -}}
{{ include (ternary "nightshift.account.write" "nightshift.account.read" (eq (include "nightshift.acts" .) "true")) . }}
{{- end -}}
