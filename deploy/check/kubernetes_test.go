package check

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const manifests = repository + "/deploy/kubernetes"

// cluster is what a kustomization makes, by name.
type cluster struct {
	configs     map[string]*core.ConfigMap
	secrets     map[string]*core.Secret
	jobs        map[string]*batch.Job
	deployments map[string]*apps.Deployment
	services    map[string]*core.Service
	budgets     map[string]*policy.PodDisruptionBudget
	policies    map[string]*networking.NetworkPolicy
	monitors    map[string]*monitoring.PodMonitor
	scaled      map[string]*scaledObject
}

// scaledObject is the part of KEDA's type that is used here, by
// https://keda.sh/docs/latest/reference/scaledobject-spec: its own Go package
// brings more modules than all others together.
type scaledObject struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		ScaleTargetRef struct {
			Name string `json:"name"`
		} `json:"scaleTargetRef"`
		PollingInterval int `json:"pollingInterval"`
		CooldownPeriod  int `json:"cooldownPeriod"`
		MinReplicaCount int `json:"minReplicaCount"`
		MaxReplicaCount int `json:"maxReplicaCount"`
		Advanced        struct {
			HorizontalPodAutoscalerConfig struct {
				Behavior struct {
					ScaleDown struct {
						StabilizationWindowSeconds int `json:"stabilizationWindowSeconds"`
						Policies                   []struct {
							Type          string `json:"type"`
							Value         int    `json:"value"`
							PeriodSeconds int    `json:"periodSeconds"`
						} `json:"policies"`
					} `json:"scaleDown"`
				} `json:"behavior"`
			} `json:"horizontalPodAutoscalerConfig"`
		} `json:"advanced"`
		Triggers []struct {
			Type     string `json:"type"`
			Name     string `json:"name"`
			Metadata struct {
				BootstrapServers       string `json:"bootstrapServers"`
				ConsumerGroup          string `json:"consumerGroup"`
				Topic                  string `json:"topic"`
				LagThreshold           string `json:"lagThreshold"`
				ActivationLagThreshold string `json:"activationLagThreshold"`
				OffsetResetPolicy      string `json:"offsetResetPolicy"`
			} `json:"metadata"`
		} `json:"triggers"`
	} `json:"spec"`
}

// render makes what `kubectl apply -k` would send, with the components, and reads
// it strictly: a field that the type does not have is an error.
func render(t *testing.T, components ...string) *cluster {
	t.Helper()
	base, err := filepath.Abs(manifests)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := func(name string) string {
		rel, err := filepath.Rel(dir, filepath.Join(base, name))
		if err != nil {
			t.Fatal(err)
		}
		return rel
	}
	overlay := map[string]any{"namespace": "penstock", "resources": []string{path("")}}
	var paths []string
	for _, c := range components {
		paths = append(paths, path(c))
	}
	overlay["components"] = paths
	text, err := yaml.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{}
	for _, r := range made.Resources() {
		if kind, ns := r.GetKind(), r.GetNamespace(); kind != "Namespace" && ns != "penstock" {
			t.Errorf("%s %s lies in the namespace %q", kind, r.GetName(), ns)
		}
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		c.read(t, r.GetApiVersion()+" "+r.GetKind(), r.GetName(), text)
	}
	example, err := os.ReadFile(filepath.Join(manifests, "secret.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.read(t, "v1 Secret", "penstock", example)
	return c
}

func (c *cluster) read(t *testing.T, kind, name string, text []byte) {
	t.Helper()
	switch kind {
	case "v1 Namespace":
		decode(t, &map[string]*core.Namespace{}, name, text)
	case "v1 ConfigMap":
		decode(t, &c.configs, name, text)
	case "v1 Secret":
		decode(t, &c.secrets, name, text)
	case "v1 Service":
		decode(t, &c.services, name, text)
	case "batch/v1 Job":
		decode(t, &c.jobs, name, text)
	case "apps/v1 Deployment":
		decode(t, &c.deployments, name, text)
	case "policy/v1 PodDisruptionBudget":
		decode(t, &c.budgets, name, text)
	case "networking.k8s.io/v1 NetworkPolicy":
		decode(t, &c.policies, name, text)
	case "monitoring.coreos.com/v1 PodMonitor":
		decode(t, &c.monitors, name, text)
	case "keda.sh/v1alpha1 ScaledObject":
		decode(t, &c.scaled, name, text)
	default:
		t.Errorf("%s %s: this kind is not checked yet", kind, name)
	}
}

func decode[T any](t *testing.T, into *map[string]*T, name string, text []byte) {
	t.Helper()
	v := new(T)
	if err := yaml.UnmarshalStrict(text, v); err != nil {
		t.Errorf("%T %s: %v", *v, name, err)
	}
	if *into == nil {
		*into = map[string]*T{}
	}
	(*into)[name] = v
}

// pods are the pods' templates by their owner's name.
func (c *cluster) pods() map[string]core.PodTemplateSpec {
	pods := map[string]core.PodTemplateSpec{}
	for name, d := range c.deployments {
		pods[name] = d.Spec.Template
	}
	for name, j := range c.jobs {
		pods[name] = j.Spec.Template
	}
	return pods
}

// environment is what a container gets.
func (c *cluster) environment(t *testing.T, container core.Container) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, from := range container.EnvFrom {
		switch {
		case from.ConfigMapRef != nil && c.configs[from.ConfigMapRef.Name] != nil:
			maps.Copy(env, c.configs[from.ConfigMapRef.Name].Data)
		case from.SecretRef != nil && c.secrets[from.SecretRef.Name] != nil:
			maps.Copy(env, c.secrets[from.SecretRef.Name].StringData)
		default:
			t.Errorf("%s takes its environment from what is not there: %v", container.Name, from)
		}
	}
	for _, e := range container.Env {
		env[e.Name] = e.Value
	}
	return env
}

// selected tells which pods a selector is for.
func (c *cluster) selected(t *testing.T, s *meta.LabelSelector) []string {
	t.Helper()
	selector, err := meta.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, pod := range c.pods() {
		if selector.Matches(labels.Set(pod.Labels)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestThePodsAreRestrictedAndBounded(t *testing.T) {
	t.Parallel()
	c := render(t, "keda", "podmonitor")
	if len(c.deployments) != 3 || len(c.jobs) != 1 {
		t.Fatalf("there are %d deployments and %d jobs", len(c.deployments), len(c.jobs))
	}
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	for name, pod := range c.pods() {
		s := pod.Spec
		if !is(s.AutomountServiceAccountToken, false) || !is(s.EnableServiceLinks, false) {
			t.Errorf("%s is given a token or variables that it has no use for", name)
		}
		if u := s.SecurityContext; u == nil || !is(u.RunAsNonRoot, true) || u.RunAsUser == nil || *u.RunAsUser != 65532 ||
			u.SeccompProfile == nil || u.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s may be root, or call what it likes: %+v", name, u)
		}
		for _, k := range slices.Concat(s.InitContainers, s.Containers) {
			u := k.SecurityContext
			if u == nil || !is(u.AllowPrivilegeEscalation, false) || !is(u.ReadOnlyRootFilesystem, true) ||
				u.Capabilities == nil || !slices.Equal(u.Capabilities.Drop, []core.Capability{"ALL"}) {
				t.Errorf("%s/%s is less restricted than it may be: %+v", name, k.Name, u)
			}
			r := k.Resources
			if r.Requests.Cpu().IsZero() || r.Requests.Memory().IsZero() || r.Limits.Memory().IsZero() {
				t.Errorf("%s/%s has no bounds: %+v", name, k.Name, r)
			}
			if strings.HasSuffix(k.Image, ":latest") || !strings.Contains(k.Image, ":") {
				t.Errorf("%s/%s runs whatever %s is", name, k.Name, k.Image)
			}
		}
	}
}

func TestTheSelectorsFindWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	c := render(t, "podmonitor")
	same := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s is for %q, want %q", what, got, want)
		}
	}
	for name, d := range c.deployments {
		same("deployment "+name, c.selected(t, d.Spec.Selector), name)
		if c.budgets[name] == nil {
			t.Errorf("%s has no disruption budget", name)
			continue
		}
		same("budget "+name, c.selected(t, c.budgets[name].Spec.Selector), name)
		for _, spread := range d.Spec.Template.Spec.TopologySpreadConstraints {
			same("spread of "+name, c.selected(t, spread.LabelSelector), name)
		}
	}
	s := c.services["penstock"]
	same("the service", c.selected(t, &meta.LabelSelector{MatchLabels: s.Spec.Selector}), "penstock-gateway")
	ports := map[string]bool{}
	for _, p := range c.deployments["penstock-gateway"].Spec.Template.Spec.Containers[0].Ports {
		ports[p.Name] = true
	}
	for _, p := range s.Spec.Ports {
		if !ports[p.TargetPort.StrVal] {
			t.Errorf("the service goes to the port %v", p.TargetPort)
		}
	}
	for name, n := range c.policies {
		for _, in := range n.Spec.Ingress {
			for _, p := range in.Ports {
				if !ports[p.Port.StrVal] {
					t.Errorf("policy %s opens the port %v", name, p.Port)
				}
			}
		}
	}
	same("policy penstock", c.selected(t, &c.policies["penstock"].Spec.PodSelector),
		"penstock-gateway", "penstock-processors", "penstock-projections", "penstock-setup")
	same("policy penstock-gateway", c.selected(t, &c.policies["penstock-gateway"].Spec.PodSelector), "penstock-gateway")
	same("the monitor", c.selected(t, &c.monitors["penstock"].Spec.Selector), "penstock-gateway", "penstock-processors", "penstock-projections")
	for _, e := range c.monitors["penstock"].Spec.PodMetricsEndpoints {
		if e.Port == nil || !ports[*e.Port] {
			t.Errorf("the monitor asks the port %v", e.Port)
		}
	}
}

func TestScalingGoesByTheLagOfEveryLane(t *testing.T) {
	t.Parallel()
	c := render(t, "keda")
	settings := c.configs["penstock"].Data
	s := c.scaled["penstock-processors"].Spec
	target := c.deployments[s.ScaleTargetRef.Name]
	if target == nil || target.Spec.Replicas != nil {
		t.Fatalf("%s is not there, or says itself how many it wants", s.ScaleTargetRef.Name)
	}
	if got := s.MaxReplicaCount; settings["PENSTOCK_PARTITIONS"] != "12" || got != 12 {
		t.Errorf("there may be %d replicas for %s partitions", got, settings["PENSTOCK_PARTITIONS"])
	}
	var topics []string
	for _, trigger := range s.Triggers {
		m := trigger.Metadata
		topics = append(topics, m.Topic)
		if trigger.Type != "kafka" || m.BootstrapServers != settings["PENSTOCK_KAFKA"] || m.ConsumerGroup != settings["PENSTOCK_PREFIX"]+"processors" || m.LagThreshold == "" {
			t.Errorf("trigger %s: %+v", trigger.Name, m)
		}
	}
	if want := []string{"penstock.requests.interactive", "penstock.requests.standard", "penstock.requests.batch"}; !slices.Equal(topics, want) {
		t.Errorf("it goes by %q", topics)
	}
}

// TestTheManifestsRun runs the Job's containers, then a process of each
// Deployment, with their arguments and their environment; asks for what their
// probes ask for; takes a job through them; and stops them within their time.
func TestTheManifestsRun(t *testing.T) {
	c := render(t)
	here := services(t)
	settings := func(k core.Container) map[string]string {
		env := c.environment(t, k)
		for name := range here {
			if env[name] == "" {
				t.Errorf("%s is told no %s", k.Name, name)
			}
		}
		maps.Copy(env, here)
		env["PENSTOCK_PREFIX"], env["PENSTOCK_REPLICATION"] = "kubernetes.", "1"
		return env
	}
	job := c.jobs["penstock-setup"].Spec.Template.Spec
	for _, k := range slices.Concat(job.InitContainers, job.Containers) {
		begin(t, k.Args, settings(k)).wait(t, patience)
	}
	running := map[string]*process{}
	for name, d := range c.deployments {
		k := d.Spec.Template.Spec.Containers[0]
		running[name] = begin(t, k.Args, settings(k))
	}
	var all []*process
	for name, d := range c.deployments {
		p, k := running[name], d.Spec.Template.Spec.Containers[0]
		for _, probe := range []*core.Probe{k.StartupProbe, k.LivenessProbe, k.ReadinessProbe} {
			if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Port.StrVal != "http" {
				t.Fatalf("%s: a probe is missing, or asks another port: %v", name, probe)
			}
			answers(t, "http://"+p.listen+probe.HTTPGet.Path)
		}
		answers(t, "http://"+p.metrics+"/metrics")
		all = append(all, p)
	}
	takeOneJobThrough(t, running["penstock-gateway"])
	stop(t, patience, all...)
}

func TestAStopIsGivenItsTime(t *testing.T) {
	t.Parallel()
	c := render(t)
	for name, d := range c.deployments {
		pod := d.Spec.Template.Spec
		least := int64(30 + 10) // PENSTOCK_GRACE, and what a stop may take beyond it
		if hooks := pod.Containers[0].Lifecycle; hooks != nil {
			least += hooks.PreStop.Sleep.Seconds
		}
		if got := c.environment(t, pod.Containers[0])["PENSTOCK_GRACE"]; got != "30s" {
			t.Errorf("%s is given %s to end", name, got)
		}
		if got := *pod.TerminationGracePeriodSeconds; got < least {
			t.Errorf("%s is killed after %d s, and may need %d", name, got, least)
		}
	}
}

// TestEverySettingOfTheManifestsIsOne: what is misspelt would be left out in
// silence.
func TestEverySettingOfTheManifestsIsOne(t *testing.T) {
	t.Parallel()
	c := render(t)
	env := map[string]string{}
	maps.Copy(env, c.configs["penstock"].Data)
	maps.Copy(env, c.secrets["penstock"].StringData)
	for k, v := range project(t).Services["penstock"].Environment {
		env[k] = *v
	}
	p := begin(t, []string{"config", "-o", "jsonl"}, env)
	p.wait(t, patience)
	for name := range env {
		setting := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "PENSTOCK_")), "_", "-")
		line := []byte(`{"setting":"` + setting + `"`)
		at := bytes.Index(p.out.Bytes(), line)
		if at < 0 {
			t.Errorf("%s is no setting", name)
			continue
		}
		if row, _, _ := bytes.Cut(p.out.Bytes()[at:], []byte("\n")); !bytes.Contains(row, []byte(`"env"`)) {
			t.Errorf("%s is not heeded: %s", name, row)
		}
	}
}
