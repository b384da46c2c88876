{{- /*
Templates for other charts. Each takes the values of this chart, which a chart that depends on it has
under its name:

  initContainers:
    {{- include "git-volume-reloader.container" (index .Values "git-volume-reloader") | nindent 4 }}
  volumes:
    {{- include "git-volume-reloader.volumes" (index .Values "git-volume-reloader") | nindent 4 }}

and set site.enabled to false. Readers mount the volume "volume" at /volume, read-only, and read
/volume/current. The pod needs fsGroup 65533, or another group that may write the volume.
*/ -}}

{{- /* The version that this chart belongs to. A dependent chart cannot see this chart's appVersion. */ -}}
{{- define "git-volume-reloader.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default "0.1.0" }}
{{- end -}}
{{- end -}}

{{- /* Labels of a pod whose sidecar the PodMonitor scrapes. */ -}}
{{- define "git-volume-reloader.podLabels" -}}
{{- if not .oneTime -}}
git-volume-reloader: sidecar
{{- end -}}
{{- end -}}

{{- /* A list of one init container: a native sidecar, or with oneTime an ordinary one. */ -}}
{{- define "git-volume-reloader.container" -}}
- name: git-volume-reloader
  image: {{ include "git-volume-reloader.image" . }}
  imagePullPolicy: {{ .image.pullPolicy }}
  {{- if .oneTime }}
  args: [--one-time]
  {{- else }}
  restartPolicy: Always
  {{- end }}
  env:
    - name: GVR_REPO
      value: {{ .repo | quote }}
    - name: GVR_REF
      value: {{ .ref | quote }}
    - name: GVR_ROOT
      value: /volume
    - name: GVR_LOG_FORMAT
      value: json
    {{- if not .oneTime }}
    - name: GVR_PERIOD
      value: {{ .period | quote }}
    - name: GVR_HTTP_BIND
      value: ":{{ .httpPort }}"
    {{- end }}
    {{- if .auth.http.secretName }}
    - name: GVR_USERNAME
      value: {{ required "auth.http needs a username; many servers accept any with a token" .auth.http.username | quote }}
    - name: GVR_PASSWORD_FILE
      value: /etc/git-http/{{ .auth.http.key }}
    {{- end }}
    {{- if .webhook.enabled }}
    - name: GVR_NUDGE_TOKEN_FILE
      value: /etc/git-nudge/{{ .webhook.key }}
    {{- end }}
    {{- range $name, $value := .settings }}
    - name: GVR_{{ $name }}
      value: {{ $value | quote }}
    {{- end }}
  {{- if not .oneTime }}
  ports:
    - name: gvr-metrics
      containerPort: {{ .httpPort }}
  # Delays the reader until the first tree is published.
  startupProbe:
    httpGet: {path: /readyz, port: {{ .httpPort }}}
    periodSeconds: 2
    failureThreshold: {{ div (add .startupSeconds 1) 2 }}
  # The heartbeat of the loop. An outage of the remote restarts nothing.
  livenessProbe:
    httpGet: {path: /livez, port: {{ .httpPort }}}
    periodSeconds: 10
    timeoutSeconds: 2
    failureThreshold: 3
  readinessProbe:
    httpGet: {path: /readyz, port: {{ .httpPort }}}
    periodSeconds: 5
  {{- end }}
  resources:
    {{- toYaml .resources | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  securityContext:
    {{- include "git-volume-reloader.securityContext" . | nindent 4 }}
  volumeMounts:
    - name: volume
      mountPath: /volume
    {{- if .auth.http.secretName }}
    - name: git-http
      mountPath: /etc/git-http
      readOnly: true
    {{- end }}
    {{- if .auth.ssh.secretName }}
    - name: git-ssh
      mountPath: /etc/git-secret
      readOnly: true
    {{- end }}
    {{- if .webhook.enabled }}
    - name: git-nudge
      mountPath: /etc/git-nudge
      readOnly: true
    {{- end }}
{{- end -}}

{{- /* The volumes of that container. */ -}}
{{- define "git-volume-reloader.volumes" -}}
{{- if and .auth.http.secretName .auth.ssh.secretName }}{{ fail "set auth.http or auth.ssh, not both" }}{{ end -}}
- name: volume
  emptyDir:
    sizeLimit: {{ .volume.sizeLimit }}
{{- with .auth.http.secretName }}
- name: git-http
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .auth.ssh.secretName }}
- name: git-ssh
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- if .webhook.enabled }}
- name: git-nudge
  secret:
    secretName: {{ required "webhook.secretName names the Secret with the token" .webhook.secretName }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- /* The security context of every container: Pod Security level "restricted". */ -}}
{{- define "git-volume-reloader.securityContext" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* The security context of the pod. */ -}}
{{- define "git-volume-reloader.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65533
runAsGroup: 65533
fsGroup: 65533
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}
