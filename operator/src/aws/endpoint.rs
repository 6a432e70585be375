//! Where the SDK's own client would send its requests: by the SDK's rules, the region, and what the
//! environment and the profile say.

use aws_config::SdkConfig;
use aws_sdk_dynamodbstreams::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use aws_types::service_config::ServiceConfigKey;
use futures::FutureExt as _;

/// The address of DynamoDB Streams; `None` if there is none by the SDK's rules.
///
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>
pub fn dynamodb_streams(config: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("DynamoDB Streams")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    let of_all = config.endpoint_url().map(str::to_owned);
    // What is given in code comes before what the environment says of the one service.
    let given = match config.get_origin("endpoint_url").is_client_config() {
        true => of_all,
        false => config.service_config().and_then(|all| all.load_config(key)).or(of_all),
    };
    let params = Params::builder()
        .set_region(config.region().map(ToString::to_string))
        .set_use_fips(config.use_fips())
        .set_use_dual_stack(config.use_dual_stack())
        .set_endpoint(given)
        .build()
        .ok()?;
    // Ready at once: the rules are part of the SDK.
    let endpoint = DefaultResolver::new().resolve_endpoint(&params).now_or_never()?.ok()?;
    Some(format!("{}/", endpoint.url().trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use aws_config::Region;

    use super::*;

    fn endpoint_in(region: &'static str, given: Option<&str>) -> Option<String> {
        let config = SdkConfig::builder().region(Region::from_static(region));
        let config = match given {
            Some(given) => config.endpoint_url(given),
            None => config,
        };
        dynamodb_streams(&config.build())
    }

    #[test]
    fn it_is_the_regions() {
        for (region, expected) in [
            ("eu-west-1", "https://streams.dynamodb.eu-west-1.amazonaws.com/"),
            ("cn-north-1", "https://streams.dynamodb.cn-north-1.amazonaws.com.cn/"),
            ("us-gov-west-1", "https://streams.dynamodb.us-gov-west-1.amazonaws.com/"),
        ] {
            assert_eq!(endpoint_in(region, None).as_deref(), Some(expected));
        }
    }

    #[test]
    fn it_is_the_one_that_is_given() {
        let given = "http://127.0.0.1:4566";
        assert_eq!(endpoint_in("eu-west-1", Some(given)), Some(format!("{given}/")));
    }
}
