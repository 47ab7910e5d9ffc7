{{/* Whether a pattern means an action. Takes pattern, name. "true" or "". */}}
{{- define "nightshift.fits" -}}
{{- if or (eq .pattern "*") (eq .pattern .name) (and (hasSuffix "::*" .pattern) (hasPrefix (trimSuffix "*" .pattern) .name)) }}true{{ end -}}
{{- end -}}

{{/* Whether an action is on. Takes actions, name. "true" or "". */}}
{{- define "nightshift.isOn" -}}
{{- $name := .name -}}
{{- $on := "" -}}
{{- range .actions.allow }}{{ if include "nightshift.fits" (dict "pattern" . "name" $name) }}{{ $on = "true" }}{{ end }}{{ end -}}
{{- range .actions.deny }}{{ if include "nightshift.fits" (dict "pattern" . "name" $name) }}{{ $on = "" }}{{ end }}{{ end -}}
{{- $on -}}
{{- end -}}

{{/*
The rules of a role, from files/rights.yaml, which is generated from the catalog of actions. Takes root, write (whether
those that change something), and scope: `wide` (nodes and the engine's own), `narrow` (pods and workloads), `all` of these,
or `home`: Jobs, reads and writes alike, in the one namespace that is meant for them.
*/}}
{{- define "nightshift.rules" -}}
{{- $root := .root -}}
{{- $table := $root.Files.Get "files/rights.yaml" | fromYaml -}}
{{- $needs := $table.own -}}
{{- range $name, $rights := $table.actions -}}
{{- if include "nightshift.isOn" (dict "actions" $root.Values.actions "name" $name) -}}
{{- $needs = concat $needs $rights -}}
{{- end -}}
{{- end -}}
{{- $verbs := dict -}}
{{- range $needs -}}
{{- /* A review is a question, though it is sent by create. */ -}}
{{- $writes := not (or (has .verb (list "get" "list" "watch")) (eq .group "authentication.k8s.io")) -}}
{{- $narrow := or (eq .group "apps") (hasPrefix "pods" .resource) -}}
{{- $home := or (eq .group "batch") (eq .resource "pods/log") -}}
{{- $within := or (eq $.scope "all") (eq $narrow (eq $.scope "narrow")) -}}
{{- if ternary $home (and (not $home) (eq $writes $.write) $within) (eq $.scope "home") -}}
{{- $key := printf "%s|%s" .group .resource -}}
{{- $_ := set $verbs $key (append (get $verbs $key | default list) .verb | uniq | sortAlpha) -}}
{{- end -}}
{{- end -}}
{{- range $key, $list := $verbs }}
- apiGroups: [{{ index (splitList "|" $key) 0 | quote }}]
  resources: [{{ index (splitList "|" $key) 1 | quote }}]
  verbs: [{{ $list | join ", " }}]
{{- end -}}
{{- end -}}
