//! Which WebSocket domains a notifier may name, and where each of them is. A resource never decides
//! the endpoint: it names a domain, and the process's flags say what follows.

use crate::api::WebSocket;
use crate::rules::InvalidSpec;

/// What the process's flags say about WebSocket domains.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// Custom domains that may be named besides API Gateway's own.
    pub allowed: Vec<String>,
    /// An emulator's endpoint, with `{domain}`, `{apiId}` and `{stage}` in it.
    pub template: Option<String>,
}

/// Where a notifier posts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The URL, without a slash at its end.
    pub url: String,
    /// The region requests are signed for, where the domain or the spec tells it.
    pub region: Option<String>,
}

impl Endpoints {
    /// The endpoint of a spec's domain and stage.
    pub fn resolve(&self, web_socket: &WebSocket) -> Result<Endpoint, InvalidSpec> {
        let WebSocket { domain, stage, region: asked } = web_socket;
        let region = execute_api_region(domain);
        let refused =
            |field: &str, problem: String| Err(InvalidSpec { field: field.to_owned(), problem });
        if region.is_none() && !self.allowed.contains(domain) {
            return refused(
                "webSocket.domain",
                format!(
                    "{domain} is neither <api-id>.execute-api.<region>.amazonaws.com nor a domain that the operator allows; use the API's own domain, or ask the operator's administrator to add this one to --allowed-websocket-domains"
                ),
            );
        }
        if region.is_some() && stage.is_none() {
            return refused("webSocket.stage", "is required with an execute-api domain".to_owned());
        }
        if let (Some(region), Some(asked)) = (region, asked)
            && region != asked
        {
            return refused(
                "webSocket.region",
                format!("is {asked}, but the domain is in {region}; remove webSocket.region"),
            );
        }
        let url = match (&self.template, stage) {
            (Some(template), _) => {
                expand_template(template, domain, stage.as_deref().unwrap_or_default())
            }
            (None, Some(stage)) => format!("https://{domain}/{stage}"),
            (None, None) => format!("https://{domain}"),
        };
        let region = region.or(asked.as_deref()).map(str::to_owned);
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
    // The schema has checked this, but an older one may not have.
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
    fn an_execute_api_domain_tells_its_region() {
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
    fn any_other_domain_must_be_allowed() {
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
            let refused = endpoint(&none(), domain, Some("api")).unwrap_err();
            assert!(refused.starts_with("webSocket.domain"), "{domain}: {refused}");
        }
    }

    #[test]
    fn a_custom_domain_is_signed_for_the_region_that_is_asked_for() {
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
    fn an_emulator_is_found_by_its_template() {
        let template = Some("http://127.0.0.1:4566/_aws/{apiId}/{stage}?{domain}".to_owned());
        let emulator = Endpoints { allowed: vec![], template };
        assert_eq!(
            endpoint(&emulator, "abc.execute-api.eu-west-1.amazonaws.com", Some("api")),
            Ok("http://127.0.0.1:4566/_aws/abc/api?abc.execute-api.eu-west-1.amazonaws.com Some(\"eu-west-1\")".into())
        );
    }
}
