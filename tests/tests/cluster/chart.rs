//! The Helm chart: what it renders, what it lets the operator do, and a release of it from its
//! installation to its end, with a kubelet played for its one Pod.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::http::StatusCode;
use serde_json::{Value, json};
use stream_notifier_tests::control_plane::ControlPlane;
use stream_notifier_tests::helm::Helm;
use stream_notifier_tests::http;
use stream_notifier_tests::kubectl::Kubectl;
use stream_notifier_tests::namespace::Namespace;
use stream_notifier_tests::operator::Operator;
use stream_notifier_tests::port::free_port;
use stream_notifier_tests::process::Exit;
use stream_notifier_tests::wait::eventually;

const LIMIT: Duration = Duration::from_secs(60);

/// All that the operator may do: API group, resource, verb.
const RIGHTS: [(&str, &str, &str); 8] = [
    ("streamnotifier.dev", "streamnotifiers", "list"),
    ("streamnotifier.dev", "streamnotifiers", "watch"),
    ("streamnotifier.dev", "streamnotifiers/status", "patch"),
    ("", "configmaps", "create"),
    ("", "configmaps", "get"),
    ("", "configmaps", "patch"),
    ("events.k8s.io", "events", "create"),
    ("events.k8s.io", "events", "patch"),
];

#[tokio::test]
async fn the_chart_has_the_generated_crd() -> Result<()> {
    let crd = fs::read_to_string(root().join("crds/streamnotifiers.yaml"))?;
    let copy =
        fs::read_to_string(root().join("charts/stream-notifier/files/streamnotifiers.yaml"))?;
    ensure!(
        copy == crd,
        "charts/stream-notifier/files/streamnotifiers.yaml is not crds/streamnotifiers.yaml: run `make generate`"
    );

    let control_plane = ControlPlane::shared().await?;
    let helm = control_plane.helm().await?;
    let kubectl = control_plane.kubectl();
    let generated = objects(kubectl, &crd).await?.remove(0);
    let rendered = render(&helm, kubectl, &[]).await?;
    let rendered = one(&rendered, "CustomResourceDefinition")?;
    ensure!(
        rendered["spec"] == generated["spec"] && name(rendered)? == name(&generated)?,
        "the chart changes the CustomResourceDefinition"
    );
    let policy = "/metadata/annotations/helm.sh~1resource-policy";
    ensure!(rendered.pointer(policy) == Some(&json!("keep")));

    let rendered = render(&helm, kubectl, &["--set=crds.keep=false"]).await?;
    ensure!(one(&rendered, "CustomResourceDefinition")?.pointer(policy).is_none());
    let rendered = render(&helm, kubectl, &["--set=crds.enabled=false"]).await?;
    ensure!(one(&rendered, "CustomResourceDefinition").is_err());
    Ok(())
}

#[tokio::test]
async fn it_renders_the_same_each_time_and_refuses_what_it_does_not_know() -> Result<()> {
    let helm = ControlPlane::shared().await?.helm().await?;
    let chart = chart();
    helm.run(&["lint", "--strict", &chart]).await?;

    let sets: [&[&str]; 2] = [&[], &["--set=watchNamespace=dev,podLabels.team=a,podLabels.app=b"]];
    for set in sets {
        let template = [&["template", "release", &chart], set].concat();
        ensure!(helm.run(&template).await? == helm.run(&template).await?);
    }

    for (refused, why) in [
        ("--set=watchNamespaces=dev", "watchNamespaces"),
        ("--set=image.name=other", "name"),
        ("--set=image.pullPolicy=Sometimes", "pullPolicy"),
        ("--set=watchNamespace=Dev", "watchNamespace"),
        ("--set=allowedWebSocketDomains={https://ws.example.com}", "allowedWebSocketDomains"),
        ("--set=logFormat=xml", "logFormat"),
        ("--set=getRecordsPerSecond=0", "getRecordsPerSecond"),
        ("--set=postsPerSecond=0", "postsPerSecond"),
        ("--set=extraArgs={--bind-address=0.0.0.0:9090}", "port 8080"),
        ("--set-json=extraEnv=[{\"name\": \"STREAM_NOTIFIER_BIND_ADDRESS\"}]", "port 8080"),
        ("--set=commonLabels.replicas=1", "commonLabels"),
        ("--kube-version=1.32.9", "kubeVersion"),
    ] {
        let error = match helm.run(&["template", "release", &chart, refused]).await {
            Ok(_) => bail!("{refused} is accepted"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(error.contains(why), "{refused}: {error}");
    }
    // As managed clusters call themselves.
    let managed = "--kube-version=v1.33.1-eks-0a1b2c3";
    helm.run(&["template", "release", &chart, managed]).await.map(drop)
}

#[tokio::test]
async fn what_is_common_is_on_every_object_and_teams_may_declare() -> Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let helm = control_plane.helm().await?;
    let set = [
        "--set=fullnameOverride=other,priorityClassName=high,rbac.aggregate=true",
        "--set=commonLabels.team=a,commonLabels.app\\.kubernetes\\.io/name=b",
        "--set-json=volumes=[{\"name\": \"certificates\", \"emptyDir\": {}}]",
        "--set-json=volumeMounts=[{\"name\": \"certificates\", \"mountPath\": \"/certificates\"}]",
        "--set-json=topologySpreadConstraints=[{\"maxSkew\": 1}]",
    ];
    let rendered = render(&helm, control_plane.kubectl(), &set).await?;
    for object in &rendered {
        let labels = &object["metadata"]["labels"];
        ensure!(labels["team"] == "a", "{object}");
        // What the Deployment selects by stays the chart's.
        ensure!(labels["app.kubernetes.io/name"] == "stream-notifier", "{object}");
    }
    let deployment = one(&rendered, "Deployment")?;
    ensure!(name(deployment)? == "other");
    let pod = &deployment["spec"]["template"];
    ensure!(pod["metadata"]["labels"]["team"] == "a", "{pod}");
    ensure!(pod["spec"]["priorityClassName"] == "high", "{pod}");
    ensure!(pod["spec"]["volumes"][0]["name"] == "certificates", "{pod}");
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][0];
    ensure!(mount["mountPath"] == "/certificates", "{pod}");
    ensure!(pod["spec"]["topologySpreadConstraints"][0]["maxSkew"] == 1, "{pod}");

    let aggregated = |rendered: &[Value], role: &str| -> Vec<Value> {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
        let is_of = |object: &&Value| object["metadata"]["labels"][&label] == "true";
        let roles = rendered.iter().filter(is_of);
        roles.flat_map(|role| list(&role["rules"][0]["verbs"]).unwrap_or_default()).collect()
    };
    let read = ["get", "list", "watch"];
    let write = ["create", "delete", "deletecollection", "patch", "update"];
    ensure!(aggregated(&rendered, "view") == read);
    ensure!(aggregated(&rendered, "edit") == [&read[..], &write].concat());
    ensure!(aggregated(&rendered, "admin") == aggregated(&rendered, "edit"));
    let off = render(&helm, control_plane.kubectl(), &[]).await?;
    ensure!(aggregated(&off, "admin").is_empty());
    Ok(())
}

#[tokio::test]
async fn its_readme_and_its_schema_know_every_value() -> Result<()> {
    let helm = ControlPlane::shared().await?.helm().await?;
    let dry = ["install", "release", &chart(), "--dry-run=client", "--output=json"];
    let release: Value = serde_json::from_str(&helm.run(&dry).await?)?;
    let schema = fs::read_to_string(root().join("charts/stream-notifier/values.schema.json"))?;
    let schema: Value = serde_json::from_str(&schema)?;

    // A value is what the schema does not divide any further.
    let mut values = BTreeMap::new();
    flatten(&schema, &release["chart"]["values"], "", &mut values)?;
    let readme = fs::read_to_string(root().join("charts/stream-notifier/README.md"))?;
    let mut rows = BTreeMap::new();
    for row in readme.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (value, rest) = row.split_once("` | `").context("not a row of values")?;
        let (default, _) = rest.split_once("` | ").context("a row without a default")?;
        rows.insert(value.to_owned(), default.to_owned());
    }
    ensure!(
        rows == values,
        "the table of charts/stream-notifier/README.md has\n{rows:#?}\nand values.yaml has\n{values:#?}"
    );
    Ok(())
}

/// `parent.child` → default, as JSON.
fn flatten(
    schema: &Value,
    value: &Value,
    path: &str,
    values: &mut BTreeMap<String, String>,
) -> Result<()> {
    let Some(properties) = schema["properties"].as_object() else {
        values.insert(path.to_owned(), value.to_string());
        return Ok(());
    };
    let given = value.as_object().with_context(|| format!("{path} is no object"))?;
    for key in given.keys() {
        ensure!(properties.contains_key(key), "the schema lacks {path}.{key}");
    }
    for (key, schema) in properties {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match given.get(key) {
            // What may be in the resources is Kubernetes' business, not ours.
            Some(value) if key == "resources" => drop(values.insert(path, value.to_string())),
            Some(value) => flatten(schema, value, &path, values)?,
            None => ensure!(path == "global", "values.yaml lacks {path}"),
        }
    }
    Ok(())
}

/// Here nobody plays a kubelet: an operator of all namespaces would work on those of other tests.
#[tokio::test]
async fn for_all_namespaces_it_has_its_rights_and_no_others() -> Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let helm = control_plane.helm().await?;
    let namespace = control_plane.namespace().await?;
    // The ClusterRole is called like the release.
    let release = format!("{}-stream-notifier", namespace.name());
    let role = json!({"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/notifier"});
    let annotations = format!("--set-json=serviceAccount.annotations={role}");
    let install = [
        "install",
        &release,
        &chart(),
        "--namespace",
        namespace.name(),
        // It is the other release's.
        "--set=crds.enabled=false",
        &annotations,
    ];
    helm.run(&install).await?;

    let account = namespace.get(&["serviceaccount", &release]).await?;
    ensure!(account["automountServiceAccountToken"] == false);
    ensure!(
        account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
            == role["eks.amazonaws.com/role-arn"]
    );

    let account = control_plane.as_service_account(namespace.name(), &release).await?;
    for everywhere in [namespace.name(), "default", "kube-system"] {
        ensure_rights(control_plane, &account, everywhere, &RIGHTS).await?;
    }
    for (verb, resource) in [
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods"),
        ("create", "serviceaccounts/token"),
        ("list", "configmaps"),
        ("delete", "configmaps"),
        ("list", "events.events.k8s.io"),
        ("create", "events"),
        ("update", "streamnotifiers.streamnotifier.dev"),
        ("patch", "streamnotifiers.streamnotifier.dev"),
        ("delete", "streamnotifiers.streamnotifier.dev"),
    ] {
        let can = ["auth", "can-i", verb, resource, "--all-namespaces"];
        let answer = account.output(&can, "").await?;
        ensure!(answer.stdout == b"no\n", "it may {verb} {resource}");
    }

    let uninstall = ["uninstall", &release, "--namespace", namespace.name()];
    helm.run(&uninstall).await?;
    ensure_rights(control_plane, &account, namespace.name(), &[]).await?;
    namespace.passed();
    Ok(())
}

#[tokio::test]
async fn a_release_from_its_installation_to_its_end() -> Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let helm = control_plane.helm().await?;
    let namespace = control_plane.namespace().await?;
    // As in a cluster where it was applied by hand, and as the other tests of this run have it.
    let crd = fs::read_to_string(root().join("crds/streamnotifiers.yaml"))?;
    let kubectl = control_plane.kubectl();
    // Another test may be applying it at this moment.
    eventually(LIMIT, "the CustomResourceDefinition", async || kubectl.apply(&crd).await).await?;

    let release = format!("{}-release", namespace.name());
    let release = Release { helm: &helm, namespace: &namespace, name: &release };
    let kubelet = Kubelet::start(control_plane, &namespace).await?;

    let ((), operator) = tokio::try_join!(release.helm("install", &[]), kubelet.run_pod(&release))?;
    let account = control_plane.as_service_account(namespace.name(), &operator.account).await?;
    ensure_rights(control_plane, &account, namespace.name(), &RIGHTS).await?;
    ensure_rights(control_plane, &account, "default", &[]).await?;

    // It reads StreamNotifiers and writes their status; one in trouble does not make the Pod unready.
    namespace.apply(&notifier().to_string()).await?;
    ready_reason(&namespace, |reason| reason == "Invalid").await?;
    operator.probe(LIMIT).await?;

    let allow = ["--set=allowedWebSocketDomains={ws.example.com}"];
    let ((), operator) = tokio::try_join!(release.helm("upgrade", &allow), async {
        kubelet.end_pod(operator).await?;
        kubelet.run_pod(&release).await
    })?;
    // Now the domain is allowed, and it is the AWS API that is missing.
    ready_reason(&namespace, |reason| reason != "Invalid").await?;
    eventually(LIMIT, "/readyz to say what is missing", async || {
        let answer = http::get(&format!("{}/readyz", operator.url)).await?;
        let said = answer.text();
        ensure!(answer.status == StatusCode::SERVICE_UNAVAILABLE, "{said}");
        ensure!(said.starts_with(&format!("{}/chart: ", namespace.name())), "{said}");
        Ok(())
    })
    .await?;
    operator.probe(LIMIT).await?;

    let uninstall = ["uninstall", release.name, "--namespace", namespace.name()];
    tokio::try_join!(helm.run(&uninstall), kubelet.end_pod(operator))?;
    kubectl
        .get(&["crd", "streamnotifiers.streamnotifier.dev"])
        .await
        .context("the CustomResourceDefinition did not stay")?;
    namespace.get(&["streamnotifier", "chart"]).await?;
    ensure_rights(control_plane, &account, namespace.name(), &[]).await?;
    kubelet.end().await?;
    namespace.passed();
    Ok(())
}

struct Release<'a> {
    helm: &'a Helm,
    namespace: &'a Namespace,
    name: &'a str,
}

impl Release<'_> {
    /// Installs or upgrades it, and waits as `helm --wait` does.
    async fn helm(&self, what: &str, more: &[&str]) -> Result<()> {
        let watch = format!("--set=watchNamespace={}", self.namespace.name());
        // Credentials of nobody, and no AWS behind them.
        let environment = json!([
            {"name": "AWS_ACCESS_KEY_ID", "value": "test"},
            {"name": "AWS_SECRET_ACCESS_KEY", "value": "test"},
            {"name": "AWS_REGION", "value": "eu-west-1"},
            {"name": "AWS_ENDPOINT_URL", "value": "http://127.0.0.1:1"},
        ]);
        let environment = format!("--set-json=extraEnv={environment}");
        let chart = chart();
        let arguments = [what, self.name, &chart, "--namespace", self.namespace.name()];
        let options = ["--take-ownership", "--wait", "--timeout=100s", &watch, &environment];
        let command = [&arguments[..], &options, more].concat();
        self.helm.run(&command).await.map(drop)
    }
}

/// What a node does for a Pod, as far as this one needs it.
struct Kubelet<'a> {
    control_plane: &'a ControlPlane,
    namespace: &'a Namespace,
    node: String,
}

/// A Pod that runs.
struct Pod {
    name: String,
    account: String,
    grace: Duration,
    probes: Vec<String>,
    url: String,
    operator: Operator,
}

impl<'a> Kubelet<'a> {
    async fn start(control_plane: &'a ControlPlane, namespace: &'a Namespace) -> Result<Self> {
        let node = format!("node-of-{}", namespace.name());
        let manifest = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
        let create = ["create", "-f", "-"];
        let kubectl = control_plane.kubectl();
        kubectl.run_with(&create, &manifest.to_string()).await?;
        Ok(Self { control_plane, namespace, node })
    }

    /// Runs the Pod that the release's Deployment has made: its arguments and environment, and its
    /// ServiceAccount's rights, with the operator's real binary for its image.
    async fn run_pod(&self, release: &Release<'_>) -> Result<Pod> {
        let selector = format!("--selector=app.kubernetes.io/instance={}", release.name);
        let pod = eventually(LIMIT, "the Deployment's Pod", async || {
            let pods = self.namespace.get(&["pods", &selector]).await?;
            match pods["items"].as_array().map(Vec::as_slice) {
                Some([pod]) if pod["metadata"]["deletionTimestamp"].is_null() => Ok(pod.clone()),
                _ => bail!("there is not one Pod: {pods}"),
            }
        })
        .await?;
        let (name, spec) = (name(&pod)?.to_owned(), &pod["spec"]);
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.node},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{name}/binding", self.namespace.name());
        let bind = ["create", "--raw", &path, "-f", "-"];
        let kubectl = self.control_plane.kubectl();
        kubectl.run_with(&bind, &binding.to_string()).await?;

        let [container] = &list(&spec["containers"])?[..] else {
            bail!("not one container: {spec}");
        };
        ensure!(container["command"].is_null(), "the image's own command runs");
        ensure!(spec["automountServiceAccountToken"] == true);
        let account = text(&spec["serviceAccountName"])?;
        let identity =
            self.control_plane.as_service_account(self.namespace.name(), &account).await?;
        let arguments = list(&container["args"])?;
        let arguments = arguments.iter().map(text).collect::<Result<Vec<_>>>()?;
        // A Pod has an address of its own, with a port 8080 of its own.
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut environment = vec![
            ("HOSTNAME".to_owned(), name.clone()),
            ("STREAM_NOTIFIER_BIND_ADDRESS".to_owned(), address.clone()),
        ];
        for variable in list(&container["env"])? {
            environment.push((text(&variable["name"])?, text(&variable["value"])?));
        }
        let operator = Operator::start(arguments, environment, Some(identity.kubeconfig()))?;

        let ports = json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]);
        ensure!(container["ports"] == ports, "{}", container["ports"]);
        let mut probes = Vec::new();
        for probe in ["livenessProbe", "readinessProbe"] {
            let probe = &container[probe]["httpGet"];
            ensure!(probe["port"] == "http", "{probe}");
            probes.push(text(&probe["path"])?);
        }
        let grace = spec["terminationGracePeriodSeconds"].as_u64().context("no period of grace")?;
        let pod = Pod {
            name,
            account,
            grace: Duration::from_secs(grace),
            probes,
            url: format!("http://{address}"),
            operator,
        };
        pod.probe(LIMIT).await?;
        self.tell_running(&pod, container).await?;
        Ok(pod)
    }

    async fn tell_running(&self, pod: &Pod, container: &Value) -> Result<()> {
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
            .map(|kind| json!({"type": kind, "status": "True"}));
        let status = json!({"status": {
            "phase": "Running",
            "conditions": conditions,
            "containerStatuses": [{
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": true,
                "started": true,
                "restartCount": 0,
                "state": {"running": {}},
            }],
        }});
        let status = status.to_string();
        let patch =
            ["patch", "pod", &pod.name, "--subresource=status", "--type=merge", "-p", &status];
        self.namespace.run(&patch).await.map(drop)
    }

    /// Waits until the Pod is to go, asks it to within its period of grace, and says that it is gone.
    async fn end_pod(&self, pod: Pod) -> Result<()> {
        eventually(LIMIT, "the Pod's deletion", async || {
            let found = self.namespace.get(&["pod", &pod.name]).await?;
            ensure!(found["metadata"]["deletionTimestamp"].is_string());
            Ok(())
        })
        .await?;
        let exit = pod.operator.terminate(pod.grace).await?;
        ensure!(exit == Exit::Code(0), "it {exit}");
        let gone = ["delete", "pod", &pod.name, "--grace-period=0", "--force"];
        self.namespace.run(&gone).await.map(drop)
    }

    async fn end(self) -> Result<()> {
        let kubectl = self.control_plane.kubectl();
        kubectl.run(&["delete", "node", &self.node]).await.map(drop)
    }
}

impl Pod {
    /// Waits until all its probes succeed.
    async fn probe(&self, limit: Duration) -> Result<()> {
        eventually(limit, "the Pod's probes", async || {
            self.operator.process().ensure_running()?;
            for path in &self.probes {
                http::get(&format!("{}{path}", self.url)).await?.success()?;
            }
            Ok(())
        })
        .await
    }
}

/// One whose domain has to be allowed, and whose stream nobody has.
fn notifier() -> Value {
    json!({
        "apiVersion": "streamnotifier.dev/v1alpha1",
        "kind": "StreamNotifier",
        "metadata": {"name": "chart"},
        "spec": {
            "streamArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2024-12-03T08:06:15.779",
            "connections": {"tableName": "connections", "partitionKey": "sk", "value": "keys.SK"},
            "webSocket": {"domain": "ws.example.com"},
        },
    })
}

async fn ready_reason(namespace: &Namespace, expected: impl Fn(&str) -> bool) -> Result<()> {
    eventually(LIMIT, "the reason of Ready", async || {
        let notifier = namespace.get(&["streamnotifier", "chart"]).await?;
        let conditions = list(&notifier["status"]["conditions"])?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
        let reason = text(&ready.context("no condition Ready")?["reason"])?;
        ensure!(expected(&reason), "{conditions:?}");
        Ok(())
    })
    .await
}

type Rights = BTreeSet<(String, String, String)>;

/// Fails unless this is all that the account may do in the namespace beyond what every account may.
async fn ensure_rights(
    control_plane: &ControlPlane,
    account: &Kubectl,
    namespace: &str,
    expected: &[(&str, &str, &str)],
) -> Result<()> {
    let nobody = control_plane.as_service_account(namespace, "default").await?;
    let everybodys = all_rights(&nobody, namespace).await?;
    let mut rights = all_rights(account, namespace).await?;
    rights.retain(|right| !everybodys.contains(right));
    let expected: Rights = expected
        .iter()
        .map(|&(group, resource, verb)| (group.into(), resource.into(), verb.into()))
        .collect();
    ensure!(rights == expected, "in {namespace} it may {rights:?}, and should {expected:?}");
    Ok(())
}

async fn all_rights(account: &Kubectl, namespace: &str) -> Result<Rights> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    });
    // To validate it kubectl would need rights of its own.
    let ask = ["create", "--validate=false", "-f", "-", "-o", "json"];
    let answer = account.run_with(&ask, &review.to_string()).await?;
    let answer: Value = serde_json::from_str(&answer)?;
    ensure!(answer["status"]["incomplete"] == false, "{answer}");
    let mut rights = Rights::new();
    for rule in list(&answer["status"]["resourceRules"])? {
        // A right to objects of certain names would look like one to all.
        ensure!(rule["resourceNames"].is_null(), "{rule}");
        for group in list(&rule["apiGroups"])? {
            for resource in list(&rule["resources"])? {
                for verb in list(&rule["verbs"])? {
                    rights.insert((text(&group)?, text(&resource)?, text(&verb)?));
                }
            }
        }
    }
    Ok(rights)
}

/// What the chart renders with these flags.
async fn render(helm: &Helm, kubectl: &Kubectl, flags: &[&str]) -> Result<Vec<Value>> {
    let chart = chart();
    let rendered = helm.run(&[&["template", "release", &chart], flags].concat()).await?;
    objects(kubectl, &rendered).await
}

/// The objects of a manifest; kubectl reads the YAML.
async fn objects(kubectl: &Kubectl, manifest: &str) -> Result<Vec<Value>> {
    let read = ["create", "--dry-run=client", "--validate=ignore", "-o", "json", "-f", "-"];
    let json = kubectl.run_with(&read, manifest).await?;
    let documents = serde_json::Deserializer::from_str(&json).into_iter::<Value>();
    Ok(documents.collect::<Result<_, _>>()?)
}

fn one<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let object = found.next().with_context(|| format!("no {kind}"))?;
    ensure!(found.next().is_none(), "more than one {kind}");
    Ok(object)
}

fn name(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().context("no name")
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("not a text: {value}"))
}

/// Nothing is an empty list.
fn list(value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items.clone()),
        other => bail!("not a list: {other}"),
    }
}

fn chart() -> String {
    root().join("charts/stream-notifier").display().to_string()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
