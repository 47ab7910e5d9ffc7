{{/* nightshift.yaml: what the chart knows, and the values of `config` over it. */}}
{{- define "nightshift.config" -}}
{{- $tokens := list -}}
{{- range .Values.tokens -}}
{{- $file := printf "/run/secrets/nightshift/%s/%s" .secret.name .secret.key -}}
{{- $tokens = append $tokens (merge (dict "secret" (dict "file" $file)) (omit . "secret")) -}}
{{- end -}}
{{- $open := ne .Values.exposure "loopback" -}}
{{- $server := dict "listen" (ternary "0.0.0.0:7676" "127.0.0.1:7676" $open) "behind_tls" $open "tokens" $tokens -}}
{{- $ours := dict
    "data_dir" "/var/lib/nightshift/data"
    "runbooks_dir" "/etc/nightshift/runbooks"
    "rules_dir" "/etc/nightshift/rules"
    "integrations_dir" "/etc/nightshift/integrations"
    "mode_ceiling" .Values.mode
    "actions" (pick .Values.actions "allow" "deny")
    "server" $server
    "clusters" (dict "main" dict)
    "guards" (dict "protected" (dict "nodes" list "namespaces" (list "kube-system" .Release.Namespace | uniq)))
-}}
{{- if .Values.killSwitch.enabled -}}
{{- $map := dict "namespace" .Release.Namespace "name" (printf "%s-stop" (include "nightshift.name" .)) -}}
{{- $_ := set $ours "kill_switch" (dict "config_map" $map) -}}
{{- end -}}
{{- if .Values.cacheJob.enabled -}}
{{- $job := .Values.cacheJob -}}
{{- if eq (empty $job.hostPath) (empty $job.claim) -}}
{{- fail "cacheJob: set the place of the models: `hostPath` (a folder on every node) or `claim`, not both" -}}
{{- end -}}
{{- $ask := dict "namespace" (include "nightshift.jobs" .) "image" (include "nightshift.image" .) "user" (int $job.user) -}}
{{- range $key, $value := dict "host_path" $job.hostPath "claim" $job.claim "mount" $job.mount "memory_limit" $job.memoryLimit -}}
{{- if $value }}{{ $_ := set $ask $key $value }}{{ end -}}
{{- end -}}
{{- $secrets := list -}}
{{- range .Values.imagePullSecrets }}{{ $secrets = append $secrets .name }}{{ end -}}
{{- if $secrets }}{{ $_ := set $ask "pull_secrets" $secrets }}{{ end -}}
{{- $_ := set (index $ours.clusters "main") "cache_job" $ask -}}
{{- end -}}
{{- if .Values.agent.enabled -}}
{{- if not .Values.agent.tlsSecret -}}
{{- fail (printf "agent.tlsSecret: name a Secret with tls.crt, tls.key and ca.crt for %s-agents.%s.svc: agents speak to the engine over TLS alone" (include "nightshift.name" .) .Release.Namespace) -}}
{{- end -}}
{{- $account := printf "%s/%s-agent" .Release.Namespace (include "nightshift.name" .) -}}
{{- $_ := set $ours "agents" (dict
    "listen" "0.0.0.0:7677"
    "cert_file" "/run/secrets/nightshift-agents/tls.crt"
    "key_file" "/run/secrets/nightshift-agents/tls.key"
    "audience" "nightshift"
    "service_accounts" (list $account)) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $ours (deepCopy .Values.config)) -}}
{{- end -}}

{{/* The files of a folder of the chart with an ending, and values over them. Takes root, glob, part. */}}
{{- define "nightshift.files" -}}
{{- $files := dict -}}
{{- if .part.shipped -}}
{{- range $path, $_ := .root.Files.Glob .glob }}{{ $_ := set $files (base $path) ($.root.Files.Get $path) }}{{ end -}}
{{- end -}}
{{- range $name, $text := .part.files }}{{ if $text }}{{ $_ := set $files $name $text }}{{ else }}{{ $_ := unset $files $name }}{{ end }}{{ end -}}
{{- toYaml $files -}}
{{- end -}}

{{/* agent.yaml. */}}
{{- define "nightshift.agentConfig" -}}
{{- $ours := dict
    "engine" (printf "https://%s-agents.%s.svc:7677" (include "nightshift.name" .) .Release.Namespace)
    "ca_file" "/run/secrets/nightshift-agents/ca.crt"
    "token_file" "/run/secrets/nightshift/token"
    "data_dir" "/var/lib/nightshift-agent"
    "kill_file" "/var/lib/nightshift-agent/stop"
    "reboot" (list "init")
-}}
{{- toYaml (mergeOverwrite $ours (deepCopy .Values.agent.config)) -}}
{{- end -}}
