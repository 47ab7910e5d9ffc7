{{/* The accounts that the admission policies hold, as a list of CEL. */}}
{{- define "nightshift.accounts" -}}
{{- $users := list -}}
{{- range list "read" "write" -}}
{{- $users = append $users (printf "'system:serviceaccount:%s:%s'" $.Release.Namespace (include (printf "nightshift.account.%s" .) $)) -}}
{{- end -}}
[{{ $users | join ", " }}]
{{- end -}}
