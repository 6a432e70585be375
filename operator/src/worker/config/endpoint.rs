//! Resolves the WebSocket domain of a spec to an endpoint. A resource never sets an endpoint: it names a
//! domain, and the flags of the operator decide which domains are allowed and which endpoints they map to.

use crate::api::WebSocket;
use crate::rules::InvalidSpec;

/// Allowed WebSocket domains, and their endpoints, from the operator's flags.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// Custom domains that are allowed in addition to API Gateway's own.
    pub allowed: Vec<String>,
    /// The endpoint of an emulator, with the placeholders `{domain}`, `{apiId}` and `{stage}`.
    pub template: Option<String>,
}

/// The WebSocket API of a notifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The URL, without a trailing slash.
    pub url: String,
    /// The region that requests are signed for, if the domain or the spec has one.
    pub region: Option<String>,
}

impl Endpoints {
    /// The endpoint of a domain and stage.
    ///
    /// # Errors
    ///
    /// The domain is not allowed, or stage or region do not fit it.
    pub fn resolve(&self, web_socket: &WebSocket) -> Result<Endpoint, InvalidSpec> {
        let WebSocket { domain, stage, region: requested_region } = web_socket;
        let region = execute_api_region(domain);
        let rejected =
            |field: &str, problem: String| Err(InvalidSpec { field: field.to_owned(), problem });
        if region.is_none() && !self.allowed.contains(domain) {
            return rejected(
                "webSocket.domain",
                format!(
                    "{domain} is neither <api-id>.execute-api.<region>.amazonaws.com nor a domain that the operator allows; use the API's own domain, or ask the operator's administrator to add this one to --allowed-websocket-domains"
                ),
            );
        }
        if region.is_some() && stage.is_none() {
            return rejected(
                "webSocket.stage",
                "is required with an execute-api domain".to_owned(),
            );
        }
        if let (Some(region), Some(requested_region)) = (region, requested_region)
            && region != requested_region
        {
            return rejected(
                "webSocket.region",
                format!(
                    "is {requested_region}, but the domain is in {region}; remove webSocket.region"
                ),
            );
        }
        let url = match (&self.template, stage) {
            (Some(template), _) => {
                expand_template(template, domain, stage.as_deref().unwrap_or_default())
            }
            (None, Some(stage)) => format!("https://{domain}/{stage}"),
            (None, None) => format!("https://{domain}"),
        };
        let region = region.or(requested_region.as_deref()).map(str::to_owned);
        Ok(Endpoint { url: url.trim_end_matches('/').to_owned(), region })
    }
}

fn expand_template(template: &str, domain: &str, stage: &str) -> String {
    let api = domain.split('.').next().unwrap_or_default();
    template.replace("{domain}", domain).replace("{apiId}", api).replace("{stage}", stage)
}

/// The region in `<api-id>.execute-api.<region>.amazonaws.com[.cn]`, or in the dual-stack
/// `<api-id>.execute-api.<region>.api.aws`.
fn execute_api_region(domain: &str) -> Option<&str> {
    let (api, rest) = domain.split_once(".execute-api.")?;
    let region = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"]
        .iter()
        .find_map(|suffix| rest.strip_suffix(suffix))?;
    // An older schema may not have checked this.
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    (is_label(api) && is_label(region)).then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(
        endpoints: &Endpoints,
        domain: &str,
        stage: Option<&str>,
    ) -> Result<String, String> {
        let stage = stage.map(str::to_owned);
        endpoints
            .resolve(&WebSocket { domain: domain.to_owned(), stage, region: None })
            .map(|endpoint| format!("{} {:?}", endpoint.url, endpoint.region))
            .map_err(|invalid| invalid.to_string())
    }

    fn none() -> Endpoints {
        Endpoints { allowed: vec!["ws.example.com".to_owned()], template: None }
    }

    #[test]
    fn reads_the_region_of_an_execute_api_domain() {
        for (domain, region) in [
            ("abc.execute-api.eu-west-1.amazonaws.com", "eu-west-1"),
            ("abc.execute-api.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("abc.execute-api.us-east-1.api.aws", "us-east-1"),
        ] {
            let expected = format!("https://{domain}/api Some({region:?})");
            assert_eq!(endpoint(&none(), domain, Some("api")), Ok(expected));
            assert!(endpoint(&none(), domain, None).unwrap_err().starts_with("webSocket.stage"));
        }
    }

    #[test]
    fn rejects_custom_domains_that_are_not_allowed() {
        assert_eq!(
            endpoint(&none(), "ws.example.com", None),
            Ok("https://ws.example.com None".into())
        );
        for domain in [
            "evil.example.com",
            "a.b.execute-api.eu-west-1.amazonaws.com",
            "abc.execute-api.eu-west-1.amazonaws.com.evil.com",
            "abc.execute-api.evil.com.amazonaws.com",
            "evil/x?.execute-api.us-east-1.amazonaws.com",
        ] {
            let error = endpoint(&none(), domain, Some("api")).unwrap_err();
            assert!(error.starts_with("webSocket.domain"), "{domain}: {error}");
        }
    }

    #[test]
    fn signs_requests_to_a_custom_domain_for_the_region_of_the_spec() {
        let of = |domain: &str, region: &str| {
            let (stage, region) = (Some("api".to_owned()), Some(region.to_owned()));
            none().resolve(&WebSocket { domain: domain.to_owned(), stage, region })
        };
        let region = |endpoint: Endpoint| endpoint.region.unwrap();
        assert_eq!(of("ws.example.com", "eu-west-2").map(region), Ok("eu-west-2".to_owned()));
        let own = "abc.execute-api.eu-west-1.amazonaws.com";
        assert_eq!(of(own, "eu-west-1").map(region), Ok("eu-west-1".to_owned()));
        assert_eq!(
            of(own, "eu-west-2").unwrap_err().to_string(),
            "webSocket.region: is eu-west-2, but the domain is in eu-west-1; remove webSocket.region"
        );
    }

    #[test]
    fn expands_the_template_of_an_emulator() {
        let template = Some("http://127.0.0.1:4566/_aws/{apiId}/{stage}?{domain}".to_owned());
        let emulator = Endpoints { allowed: vec![], template };
        assert_eq!(
            endpoint(&emulator, "abc.execute-api.eu-west-1.amazonaws.com", Some("api")),
            Ok("http://127.0.0.1:4566/_aws/abc/api?abc.execute-api.eu-west-1.amazonaws.com Some(\"eu-west-1\")".into())
        );
    }
}
