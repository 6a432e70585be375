//! The network of the node's Pods: one bridge, whose address is also that of the servers.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::command;

const BRIDGE: &str = "cni0";

/// The address of the bridge. The API server and the servers of the tests listen on it.
pub(super) const BRIDGE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1));

const PODS: &str = "10.244.0.0/24";

/// The first address of a Pod.
const FIRST_POD_ADDRESS: &str = "10.244.0.10";

/// Creates the bridge now, because the API server listens on its address before the first Pod exists.
pub(super) async fn create_bridge() -> Result<()> {
    let address = format!("{BRIDGE_ADDRESS}/24");
    for arguments in [
        &["link", "add", BRIDGE, "type", "bridge"][..],
        &["address", "add", &address, "dev", BRIDGE],
        &["link", "set", BRIDGE, "up"],
    ] {
        let mut ip = command::command(Path::new("ip"), Path::new("/"));
        ip.args(arguments);
        command::run(ip, "").await?;
    }
    // The route from Pods to Services. Only for this network namespace.
    Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?)
}

/// The configuration of the CNI plugins.
pub(super) fn cni_config() -> String {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": PODS, "rangeStart": FIRST_POD_ADDRESS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
    .to_string()
}

/// The network of the Pods, for kube-proxy.
pub(super) fn pod_network() -> &'static str {
    PODS
}
