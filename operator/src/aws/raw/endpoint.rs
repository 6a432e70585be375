//! Resolves the endpoint that the SDK's own client would use, from the region, the environment and
//! the profile.

use aws_config::SdkConfig;
use aws_sdk_dynamodbstreams::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use aws_types::service_config::ServiceConfigKey;
use futures::FutureExt as _;

/// The endpoint of DynamoDB Streams. `None` if the SDK's rules give no endpoint.
///
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>
pub fn dynamodb_streams(config: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("DynamoDB Streams")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    let global = config.endpoint_url().map(str::to_owned);
    // An endpoint that is set in code takes precedence over the environment's endpoint of the
    // service.
    let custom = match config.get_origin("endpoint_url").is_client_config() {
        true => global,
        false => config.service_config().and_then(|it| it.load_config(key)).or(global),
    };
    let params = Params::builder()
        .set_region(config.region().map(ToString::to_string))
        .set_use_fips(config.use_fips())
        .set_use_dual_stack(config.use_dual_stack())
        .set_endpoint(custom)
        .build()
        .ok()?;
    // Never pending, because the rules are part of the SDK.
    let endpoint = DefaultResolver::new().resolve_endpoint(&params).now_or_never()?.ok()?;
    Some(endpoint.url().to_owned())
}

#[cfg(test)]
mod tests {
    use aws_config::Region;
    use aws_types::origin::Origin;
    use aws_types::service_config::LoadServiceConfig;

    use super::*;

    fn in_region(region: &'static str) -> aws_types::sdk_config::Builder {
        SdkConfig::builder().region(Region::from_static(region))
    }

    #[test]
    fn resolves_the_endpoint_of_the_region() {
        for (region, expected) in [
            ("eu-west-1", "https://streams.dynamodb.eu-west-1.amazonaws.com"),
            ("cn-north-1", "https://streams.dynamodb.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "https://streams.dynamodb.us-gov-west-1.amazonaws.com"),
        ] {
            assert_eq!(dynamodb_streams(&in_region(region).build()).as_deref(), Some(expected));
        }
    }

    /// An environment with only `AWS_ENDPOINT_URL_DYNAMODB_STREAMS`.
    #[derive(Debug)]
    struct ServiceEndpoint;

    impl LoadServiceConfig for ServiceEndpoint {
        fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
            let is_set = key.service_id() == "DynamoDB Streams" && key.env() == "AWS_ENDPOINT_URL";
            is_set.then(|| "http://service:1".to_owned())
        }
    }

    #[test]
    fn prefers_the_most_specific_custom_endpoint() {
        let custom = || in_region("eu-west-1").endpoint_url("http://global:2");
        let global = custom().build();
        assert_eq!(dynamodb_streams(&global).as_deref(), Some("http://global:2"));
        let mut both = custom().service_config(ServiceEndpoint);
        both.insert_origin("endpoint_url", Origin::shared_environment_variable());
        let both = both.build();
        assert_eq!(dynamodb_streams(&both).as_deref(), Some("http://service:1"));
        let mut in_code = custom().service_config(ServiceEndpoint);
        in_code.insert_origin("endpoint_url", Origin::shared_config());
        assert_eq!(dynamodb_streams(&in_code.build()).as_deref(), Some("http://global:2"));
    }
}
