//! The image and the chart on a real cluster: `make test-node`. One test after the other, in one cluster.

mod audit;
mod aws;
mod cluster;
mod disruption;
mod install;
mod load;
mod release;
mod troubleshooting;
