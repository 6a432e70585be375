//! What single values change in the rendered objects.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::chart::{find_object, parse_objects};

use super::{Chart, container};

/// The maximum length of the name of a Service, and of the value of a label.
const MAX_NAME: usize = 63;

fn pod(objects: &[Value]) -> Result<Value> {
    Ok(find_object(objects, "Deployment")?["spec"]["template"]["spec"].clone())
}

/// The value of an environment variable of the operator.
fn variable(objects: &[Value], name: &str) -> Result<Option<Value>> {
    let variables = container(find_object(objects, "Deployment")?)["env"].as_array();
    let mut variables = variables.into_iter().flatten();
    Ok(variables
        .find(|variable| variable["name"] == name)
        .map(|variable| variable["value"].clone()))
}

fn names<'a>(objects: &'a [Value], kind: &str) -> BTreeSet<(&'a str, &'a str)> {
    let objects = objects.iter().filter(|object| object["kind"] == kind);
    let text = |value: &'a Value| value.as_str().unwrap_or_default();
    objects.map(|it| (text(&it["metadata"]["namespace"]), text(&it["metadata"]["name"]))).collect()
}

#[tokio::test]
async fn builds_the_name_of_the_image() -> Result<()> {
    let chart = Chart::new().await?;
    let digest = format!("sha256:{}", "0".repeat(64));
    for (set, expected) in [
        ("image.tag=", "stream-notifier:0.1.0".to_owned()),
        ("image.tag=2.0", "stream-notifier:2.0".to_owned()),
        ("image.registry=a:5000,image.repository=b/c", "a:5000/b/c:0.1.0".to_owned()),
        ("image.registry=a,global.imageRegistry=b", "b/stream-notifier:0.1.0".to_owned()),
        (
            &format!("image.registry=a,image.tag=2.0,image.digest={digest}"),
            format!("a/stream-notifier@{digest}"),
        ),
    ] {
        let rendered = chart.render(&["--set", set]).await?;
        let image = &container(find_object(&rendered, "Deployment")?)["image"];
        ensure!(*image == expected, "{set}: {image}");
    }
    let secrets =
        "global.imagePullSecrets={a},imagePullSecrets[0].name=b,imagePullSecrets[1].name=a";
    let pod = pod(&chart.render(&["--set", secrets]).await?)?;
    ensure!(pod["imagePullSecrets"] == json!([{"name": "a"}, {"name": "b"}]), "{pod}");
    Ok(())
}

#[tokio::test]
async fn leaves_the_user_to_the_image() -> Result<()> {
    let chart = Chart::new().await?;
    let rendered = chart.render(&[]).await?;
    let restricted = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    ensure!(pod(&rendered)?["securityContext"] == restricted);
    let restricted = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    ensure!(container(find_object(&rendered, "Deployment")?)["securityContext"] == restricted);

    let rendered = chart.render(&["--set=podSecurityContext.runAsUser=1000"]).await?;
    let context = &pod(&rendered)?["securityContext"];
    ensure!(context["runAsUser"] == 1000 && context["runAsNonRoot"] == true, "{context}");
    let rendered = chart.render(&["--set=podSecurityContext=null,securityContext=null"]).await?;
    ensure!(pod(&rendered)?["securityContext"].is_null());
    ensure!(container(find_object(&rendered, "Deployment")?)["securityContext"].is_null());
    Ok(())
}

#[tokio::test]
async fn creates_roles_for_the_watched_namespaces() -> Result<()> {
    let chart = Chart::new().await?;
    let kinds = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    let name = "release-stream-notifier";
    let all = BTreeSet::from([("", name)]);
    let each = BTreeSet::from([("a", name), ("b", name)]);
    let none = BTreeSet::new();
    for (set, expected) in [
        ("rbac.create=true", [&all, &all, &none, &none]),
        ("namespaces={a,b}", [&none, &none, &each, &each]),
        ("rbac.create=false", [&none; 4]),
        ("rbac.create=false,namespaces={a,b}", [&none; 4]),
    ] {
        let rendered = chart.render(&["--set", set]).await?;
        for (kind, expected) in kinds.iter().zip(expected) {
            ensure!(names(&rendered, kind) == *expected, "{set}: {:?}", names(&rendered, kind));
        }
    }
    let arguments = |rendered: &[Value]| -> Result<String> {
        Ok(container(find_object(rendered, "Deployment")?)["args"].to_string())
    };
    let rendered = arguments(&chart.render(&["--set=namespaces={a,b}"]).await?)?;
    ensure!(rendered.contains("\"--namespaces=a,b\""), "{rendered}");
    ensure!(!rendered.contains("--operator-identity-namespaces"), "{rendered}");
    let set = "--set=aws.operatorIdentity.namespaces={*}";
    let rendered = arguments(&chart.render(&[set]).await?)?;
    ensure!(rendered.contains("\"--operator-identity-namespaces=*\""), "{rendered}");
    Ok(())
}

#[tokio::test]
async fn reaches_the_api_server_and_the_credentials_without_the_proxy() -> Result<()> {
    let chart = Chart::new().await?;
    let direct = "$(KUBERNETES_SERVICE_HOST),.svc,.cluster.local,\
        169.254.169.254,169.254.170.23,fd00:ec2::23";
    let rendered = chart.render(&["--set=proxy.httpsProxy=http://proxy:3128"]).await?;
    ensure!(variable(&rendered, "HTTPS_PROXY")? == Some(json!("http://proxy:3128")));
    ensure!(variable(&rendered, "HTTP_PROXY")?.is_none());
    ensure!(variable(&rendered, "NO_PROXY")? == Some(json!(direct)));
    let set = "--set=proxy.httpProxy=http://proxy:3128,proxy.noProxy=a\\,b";
    let rendered = chart.render(&[set]).await?;
    ensure!(variable(&rendered, "NO_PROXY")? == Some(json!(format!("{direct},a,b"))));
    let rendered = chart.render(&["--set=proxy.noProxy=a"]).await?;
    ensure!(variable(&rendered, "NO_PROXY")?.is_none());
    Ok(())
}

#[tokio::test]
async fn sets_variables_and_mounts_the_ca_bundle() -> Result<()> {
    let chart = Chart::new().await?;
    let set = [
        "--set=caBundle.configMapName=ca,caBundle.key=b.pem,logLevel=debug",
        "--set=aws.region=eu-west-1,aws.endpointUrl=http://a:1",
        "--set=extraEnv[0].name=A,extraEnv[0].value=b",
    ];
    let rendered = chart.render(&set).await?;
    for (name, value) in [
        ("RUST_LOG", "debug"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ENDPOINT_URL", "http://a:1"),
        ("AWS_CA_BUNDLE", "/etc/stream-notifier/ca-bundle/ca.crt"),
        ("A", "b"),
    ] {
        ensure!(variable(&rendered, name)? == Some(json!(value)), "{name}");
    }
    let volume = json!({
        "name": "ca-bundle",
        "configMap": {"name": "ca", "items": [{"key": "b.pem", "path": "ca.crt"}]},
    });
    ensure!(pod(&rendered)?["volumes"] == json!([volume]));
    let mount = json!({
        "name": "ca-bundle",
        "mountPath": "/etc/stream-notifier/ca-bundle",
        "readOnly": true,
    });
    let deployment = find_object(&rendered, "Deployment")?;
    ensure!(container(deployment)["volumeMounts"] == json!([mount]));

    let rendered = chart.render(&[]).await?;
    ensure!(container(find_object(&rendered, "Deployment")?)["env"].is_null());
    ensure!(pod(&rendered)?["volumes"].is_null());
    Ok(())
}

#[tokio::test]
async fn allows_only_the_needed_traffic() -> Result<()> {
    let chart = Chart::new().await?;
    let policy = async |set: &str| -> Result<Value> {
        let rendered = chart.render(&["--set=networkPolicy.enabled=true", "--set", set]).await?;
        Ok(find_object(&rendered, "NetworkPolicy")?["spec"].clone())
    };
    ensure!(find_object(&chart.render(&[]).await?, "NetworkPolicy").is_err());
    let default = policy("logFormat=json").await?;
    ensure!(default["ingress"] == json!([{"ports": [{"port": "http", "protocol": "TCP"}]}]));
    ensure!(default["policyTypes"] == json!(["Ingress", "Egress"]));
    let cidrs: Vec<_> = default["egress"][2]["to"].as_array().context("to")?.to_vec();
    ensure!(
        cidrs
            == ["169.254.169.254/32", "169.254.170.23/32", "fd00:ec2::23/128"]
                .map(|cidr| json!({"ipBlock": {"cidr": cidr}}))
    );
    for (set, expected) in [
        ("logFormat=json", vec![443, 6443]),
        ("proxy.httpProxy=http://proxy", vec![443, 6443, 80]),
        ("proxy.httpsProxy=https://proxy", vec![443, 6443]),
        ("proxy.httpsProxy=http://user:1@[fd00::1]:3128/", vec![443, 6443, 3128]),
        (
            "aws.endpointUrl=http://a:4566,aws.gatewayEndpoint=http://b:4566/c:1",
            vec![443, 6443, 4566],
        ),
        (r"aws.gatewayEndpoint=http://\{apiId\}.localhost:4567/\{stage\}", vec![443, 6443, 4567]),
    ] {
        let policy = policy(set).await?;
        let ports = policy["egress"][1]["ports"].as_array().context("ports")?;
        let ports: Vec<_> = ports.iter().filter_map(|port| port["port"].as_i64()).collect();
        ensure!(ports == expected, "{set}: {ports:?}");
    }
    let more = policy(
        "networkPolicy.ingressFrom[0].podSelector.matchLabels.a=b,\
         networkPolicy.extraEgress[0].ports[0].port=5353",
    )
    .await?;
    let from = json!([{"podSelector": {"matchLabels": {"a": "b"}}}]);
    ensure!(more["ingress"][0]["from"] == from, "{more}");
    ensure!(more["egress"][3] == json!({"ports": [{"port": 5353}]}), "{more}");
    Ok(())
}

#[tokio::test]
async fn keeps_names_valid() -> Result<()> {
    let chart = Chart::new().await?;
    // The longest name of a release. Its names end with a dash if they are only cut.
    let release = format!("{}-{}", "a".repeat(32), "b".repeat(20));
    let set = ["--set=nameOverride=chart-name-x,metrics.service.enabled=true,rbac.aggregate=true"];
    let rendered = parse_objects(&chart.template(&release, &set).await?)?;
    for object in &rendered {
        let name = object["metadata"]["name"].as_str().context("a name")?;
        let is_cluster_wide = object["metadata"]["namespace"].is_null();
        ensure!(is_cluster_wide || name.len() <= MAX_NAME, "{name} has {} characters", name.len());
        ensure!(!name.contains("--") && !name.ends_with('-'), "{name}");
        let labels = object["metadata"]["labels"].as_object().context("labels")?;
        for value in labels.values().filter_map(Value::as_str) {
            ensure!(value.len() <= MAX_NAME && !value.ends_with('-'), "{value}");
        }
    }
    // A release's name can have dots, that of a Service cannot.
    let dotted =
        parse_objects(&chart.template("a.b", &["--set=metrics.service.enabled=true"]).await?)?;
    let service = find_object(&dotted, "Service")?;
    ensure!(service["metadata"]["name"] == "a-b-stream-notifier-metrics", "{service}");

    let set = "--set=nameOverride=x,namespaceOverride=b,rbac.aggregate=true";
    let rendered = chart.render(&[set]).await?;
    let deployment = find_object(&rendered, "Deployment")?;
    ensure!(deployment["metadata"]["name"] == "release-x", "{deployment}");
    ensure!(deployment["metadata"]["namespace"] == "b", "{deployment}");
    ensure!(deployment["metadata"]["labels"]["app.kubernetes.io/name"] == "x", "{deployment}");
    let binding = find_object(&rendered, "ClusterRoleBinding")?;
    ensure!(binding["subjects"][0]["namespace"] == "b", "{binding}");
    ensure!(names(&rendered, "ClusterRole").contains(&("", "b-release-x-view")));
    Ok(())
}

#[tokio::test]
async fn sets_common_labels_and_aggregated_roles() -> Result<()> {
    let chart = Chart::new().await?;
    let set = [
        "--set=rbac.aggregate=true,metrics.service.enabled=true,networkPolicy.enabled=true",
        "--set=commonLabels.team=a,commonLabels.app\\.kubernetes\\.io/name=b",
    ];
    let rendered = chart.render(&set).await?;
    for object in &rendered {
        let labels = &object["metadata"]["labels"];
        ensure!(labels["team"] == "a", "{object}");
        // The labels of the selector stay those of the chart.
        ensure!(labels["app.kubernetes.io/name"] == "stream-notifier", "{object}");
    }
    let deployment = find_object(&rendered, "Deployment")?;
    ensure!(deployment["spec"]["template"]["metadata"]["labels"]["team"] == "a", "{deployment}");

    let aggregated = |rendered: &[Value], role: &str| -> Vec<Value> {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
        let has_label = |object: &&Value| object["metadata"]["labels"][&label] == "true";
        let roles = rendered.iter().filter(has_label);
        roles
            .flat_map(|role| role["rules"][0]["verbs"].as_array().cloned().unwrap_or_default())
            .collect()
    };
    let read = ["get", "list", "watch"];
    let write = ["create", "delete", "deletecollection", "patch", "update"];
    ensure!(aggregated(&rendered, "view") == read);
    ensure!(aggregated(&rendered, "edit") == [&read[..], &write].concat());
    ensure!(aggregated(&rendered, "admin") == aggregated(&rendered, "edit"));
    ensure!(aggregated(&chart.render(&[]).await?, "admin").is_empty());
    Ok(())
}

#[tokio::test]
async fn probes_livez_only() -> Result<()> {
    let chart = Chart::new().await?;
    let set = "--set=livenessProbe.failureThreshold=9";
    let rendered = chart.render(&[set, "--set=startupProbe=null"]).await?;
    let container = container(find_object(&rendered, "Deployment")?);
    ensure!(container["startupProbe"].is_null(), "{container}");
    for (probe, failures) in [("livenessProbe", 9), ("readinessProbe", 3)] {
        let probe = &container[probe];
        ensure!(probe["httpGet"] == json!({"path": "/livez", "port": "http"}), "{probe}");
        ensure!(probe["failureThreshold"] == failures, "{probe}");
    }
    Ok(())
}

#[tokio::test]
async fn copies_settings_of_the_deployment_and_the_pod() -> Result<()> {
    let chart = Chart::new().await?;
    let pod = "/spec/template/spec";
    for (value, setting, path) in [
        ("strategy", json!({"type": "RollingUpdate"}), "/spec/strategy"),
        ("revisionHistoryLimit", json!(0), "/spec/revisionHistoryLimit"),
        ("deploymentAnnotations", json!({"a": "b"}), "/metadata/annotations"),
        ("podAnnotations", json!({"a": "b"}), "/spec/template/metadata/annotations"),
        ("podLabels", json!({"a": "b"}), "/spec/template/metadata/labels"),
        ("terminationGracePeriodSeconds", json!(60), "terminationGracePeriodSeconds"),
        ("hostUsers", json!(false), "hostUsers"),
        ("dnsPolicy", json!("Default"), "dnsPolicy"),
        ("dnsConfig", json!({"searches": ["a"]}), "dnsConfig"),
        ("hostAliases", json!([{"ip": "192.0.2.1", "hostnames": ["a"]}]), "hostAliases"),
        ("nodeSelector", json!({"a": "b"}), "nodeSelector"),
        ("tolerations", json!([{"key": "a"}]), "tolerations"),
        ("affinity", json!({"nodeAffinity": {}}), "affinity"),
        ("topologySpreadConstraints", json!([{"maxSkew": 1}]), "topologySpreadConstraints"),
        ("priorityClassName", json!("high"), "priorityClassName"),
        ("runtimeClassName", json!("gvisor"), "runtimeClassName"),
        ("schedulerName", json!("custom"), "schedulerName"),
        ("extraVolumes", json!([{"name": "a", "emptyDir": {}}]), "volumes"),
        (
            "extraVolumeMounts",
            json!([{"name": "a", "mountPath": "/a"}]),
            "containers/0/volumeMounts",
        ),
        ("extraContainers", json!([{"name": "a"}]), "containers"),
        ("resources", json!({"limits": {"cpu": "1"}}), "containers/0/resources"),
        ("extraArgs", json!(["--a"]), "containers/0/args"),
    ] {
        let rendered = chart.render(&[&format!("--set-json={value}={setting}")]).await?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{pod}/{path}") };
        let found = find_object(&rendered, "Deployment")?.pointer(&path);
        ensure!(found.is_some_and(|found| contains(found, &setting)), "{value}: {found:?}");
    }
    Ok(())
}

/// Whether a value has everything that another one has.
fn contains(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Object(value), Value::Object(part)) => {
            part.iter().all(|(key, part)| value.get(key).is_some_and(|it| contains(it, part)))
        }
        (Value::Array(items), Value::Array(part)) => part.iter().all(|part| items.contains(part)),
        _ => value == part,
    }
}

#[tokio::test]
async fn evaluates_templates_in_extra_objects() -> Result<()> {
    let chart = Chart::new().await?;
    let objects = json!([
        {"kind": "A", "metadata": {"name": "{{ .Release.Name }}-a"}},
        "kind: B\nmetadata: {name: {{ include \"stream-notifier.fullname\" . }}}",
    ]);
    let rendered = chart.render(&[&format!("--set-json=extraObjects={objects}")]).await?;
    ensure!(find_object(&rendered, "A")?["metadata"]["name"] == "release-a");
    ensure!(find_object(&rendered, "B")?["metadata"]["name"] == "release-stream-notifier");
    Ok(())
}

#[tokio::test]
async fn creates_a_service_for_metrics() -> Result<()> {
    let chart = Chart::new().await?;
    let service = "--set=metrics.service.enabled=true,metrics.service.port=9090,\
        metrics.service.labels.a=b,metrics.service.annotations.c=d";
    let rendered = chart.render(&[service]).await?;
    let service = find_object(&rendered, "Service")?;
    ensure!(service["metadata"]["labels"]["a"] == "b", "{service}");
    ensure!(service["metadata"]["annotations"] == json!({"c": "d"}), "{service}");
    let deployment = find_object(&rendered, "Deployment")?;
    ensure!(service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]);
    let port = json!([{"name": "http", "port": 9090, "targetPort": "http", "protocol": "TCP"}]);
    ensure!(service["spec"]["ports"] == port, "{service}");
    ensure!(find_object(&chart.render(&[]).await?, "Service").is_err());
    Ok(())
}
