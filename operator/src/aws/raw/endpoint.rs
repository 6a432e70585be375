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
    fn it_is_the_regions() {
        for (region, expected) in [
            ("eu-west-1", "https://streams.dynamodb.eu-west-1.amazonaws.com"),
            ("cn-north-1", "https://streams.dynamodb.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "https://streams.dynamodb.us-gov-west-1.amazonaws.com"),
        ] {
            assert_eq!(dynamodb_streams(&in_region(region).build()).as_deref(), Some(expected));
        }
    }

    /// `AWS_ENDPOINT_URL_DYNAMODB_STREAMS` and nothing else.
    #[derive(Debug)]
    struct OfTheService;

    impl LoadServiceConfig for OfTheService {
        fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
            let is_it = key.service_id() == "DynamoDB Streams" && key.env() == "AWS_ENDPOINT_URL";
            is_it.then(|| "http://of-the-service:1".to_owned())
        }
    }

    #[test]
    fn it_is_the_one_that_is_given_the_nearest_first() {
        let given = || in_region("eu-west-1").endpoint_url("http://given:2");
        let of_all = given().build();
        assert_eq!(dynamodb_streams(&of_all).as_deref(), Some("http://given:2"));
        let mut both = given().service_config(OfTheService);
        both.insert_origin("endpoint_url", Origin::shared_environment_variable());
        let both = both.build();
        assert_eq!(dynamodb_streams(&both).as_deref(), Some("http://of-the-service:1"));
        let mut in_code = given().service_config(OfTheService);
        in_code.insert_origin("endpoint_url", Origin::shared_config());
        assert_eq!(dynamodb_streams(&in_code.build()).as_deref(), Some("http://given:2"));
    }
}
