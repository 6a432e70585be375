//! AWS credentials of the process: the SDK's default chain, and why it provides none.

use std::error::Error;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_config::ConfigLoader;
use aws_config::meta::ProviderChainError;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_types::error::metadata::ErrorMetadata;

use super::causes::causes;

/// Cause of a failure if no provider of the default chain is configured.
pub const NO_PROVIDER: &str = "none in the environment, the profile, the Pod or the instance";

/// Maximum length of a cause.
const MAX_CAUSE_CHARS: usize = 150;

/// The SDK's default chain, which is loaded again after a failure.
///
/// The SDK reads the profile files only once. After a failure it does not see a corrected file, and it
/// does not name the cause again.
pub struct ReloadingCredentials {
    load: Box<dyn Fn() -> ConfigLoader + Send + Sync>,
    current: Mutex<Current>,
}

/// The loaded chain, and how often one was loaded.
#[derive(Default)]
struct Current {
    provider: Option<SharedCredentialsProvider>,
    loads: u64,
}

impl ReloadingCredentials {
    /// Credentials of the configuration that `load` loads.
    pub fn new(load: impl Fn() -> ConfigLoader + Send + Sync + 'static) -> Self {
        Self { load: Box::new(load), current: Mutex::default() }
    }

    async fn credentials(&self) -> provider::Result {
        let (provider, load) = self.provider().await?;
        let result = provider.provide_credentials().await;
        let mut current = self.current();
        // Another task may have loaded a newer chain.
        if result.is_err() && current.loads == load {
            current.provider = None;
        }
        result
    }

    /// The loaded chain, and the number of its load.
    async fn provider(&self) -> Result<(SharedCredentialsProvider, u64), CredentialsError> {
        let loaded = {
            let current = self.current();
            current.provider.clone().map(|provider| (provider, current.loads))
        };
        if let Some(loaded) = loaded {
            return Ok(loaded);
        }
        let loaded = (self.load)().load().await.credentials_provider();
        let loaded = loaded.ok_or_else(CredentialsError::not_loaded_no_source)?;
        let mut current = self.current();
        current.loads += 1;
        current.provider = Some(loaded.clone());
        Ok((loaded, current.loads))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProvideCredentials for ReloadingCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }

    /// The credentials of an instance stay valid while its metadata service does not respond.
    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.current().provider.as_ref()?.fallback_on_interrupt()
    }
}

impl fmt::Debug for ReloadingCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadingCredentials").finish_non_exhaustive()
    }
}

/// A failure to load credentials. Its text is the cause, as a condition names it.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct CredentialsFailure {
    cause: String,
    source: BoxError,
}

impl CredentialsFailure {
    /// Describes the failure of a request.
    pub fn new(source: BoxError) -> Self {
        Self { cause: credentials_cause(&*source), source }
    }
}

/// Describes why there are no credentials.
///
/// The text has no secrets, times or request ids. It is the same for each attempt, so that the
/// condition does not change.
pub fn credentials_cause(error: &(dyn Error + 'static)) -> String {
    // Each provider wraps the error of the next one.
    let innermost = causes(error).filter_map(|cause| cause.downcast_ref::<CredentialsError>());
    let Some(innermost) = innermost.last() else {
        return describe(error);
    };
    let source = match innermost.source().and_then(|source| source.downcast_ref()) {
        Some(chain) => profile_failure(chain),
        None => innermost.source(),
    };
    match (innermost, source) {
        (_, Some(source)) => describe(source),
        (CredentialsError::CredentialsNotLoaded(_), None) => NO_PROVIDER.to_owned(),
        (other, None) => describe(other),
    }
}

/// The failure of the profile, if there is one. The failures of the other providers in a chain only
/// say that they are not configured.
fn profile_failure(chain: &ProviderChainError<CredentialsError>) -> Option<&(dyn Error + 'static)> {
    let profile = chain.attempts().iter().find(|attempt| attempt.name() == "Profile");
    profile?.error().source()
}

/// Joins an error and its causes.
fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut is_from_service = false;
    // The metadata of a service's error contain the id of the request.
    for cause in causes(error).take_while(|cause| !cause.is::<ErrorMetadata>()) {
        let line = cause.to_string();
        let line = line.lines().next().unwrap_or_default();
        // A process can print anything to its standard error, and so can a service in its message.
        let line = line.split(". Stderr:").next().unwrap_or_default();
        let line = if is_from_service { line.split(':').next().unwrap_or_default() } else { line };
        is_from_service |= line == "service error";
        if !text.contains(line) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{line}");
        }
    }
    text.replace(';', ",").chars().take(MAX_CAUSE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use aws_config::meta::credentials::CredentialsProviderChain;
    use aws_config::profile::ProfileFileCredentialsProvider;
    use aws_credential_types::Credentials;
    use aws_credential_types::credential_fn::provide_credentials_fn;

    use super::*;
    use crate::aws::config::defaults;

    /// The credentials of the profile `p` in this configuration file.
    async fn of_profile(file: &str) -> provider::Result {
        // The type that replaces these is in a crate of the SDK's internals.
        #[allow(deprecated, reason = "aws-config exports no other name")]
        let files = {
            use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
            ProfileFiles::builder().with_contents(ProfileFileKind::Config, file).build()
        };
        let builder = ProfileFileCredentialsProvider::builder();
        #[allow(deprecated, reason = "aws-config exports no other name")]
        let provider = builder.profile_files(files).profile_name("p").build();
        // As in the default chain.
        let environment =
            provide_credentials_fn(async || Err(CredentialsError::not_loaded("not set")));
        CredentialsProviderChain::first_try("Environment", environment)
            .or_else("Profile", provider)
            .provide_credentials()
            .await
    }

    async fn cause_of_profile(file: &str) -> String {
        credentials_cause(&of_profile(file).await.unwrap_err())
    }

    #[tokio::test]
    async fn runs_the_process_of_a_profile() {
        let output = r#"{"Version":1,"AccessKeyId":"id","SecretAccessKey":"key"}"#;
        let file = format!("[profile p]\ncredential_process = echo '{output}'\n");
        let credentials = of_profile(&file).await.unwrap();
        assert_eq!((credentials.access_key_id(), credentials.secret_access_key()), ("id", "key"));
    }

    #[tokio::test]
    async fn names_the_cause_of_a_failed_profile_without_secrets() {
        let process = |command: &str| format!("[profile p]\ncredential_process = {command}\n");
        for (file, expected) in [
            ("[profile other]\naws_access_key_id = id\n".to_owned(), "`p` was not defined"),
            (process("sh -c 'echo secret >&2; exit 3'"), "exited with code exit status: 3"),
            (process("echo secret"), "could not parse response"),
            ("[profile p]\nsource_profile = p\nrole_arn = r\n".to_owned(), "p"),
            ("[profile p]\nregion = eu-west-1\n".to_owned(), NO_PROVIDER),
        ] {
            let cause = cause_of_profile(&file).await;
            assert!(cause.contains(expected) && !cause.contains("secret"), "{file}: {cause}");
        }
    }

    /// Without the cargo feature of the SDK, the cause would name the feature.
    #[tokio::test]
    async fn reads_the_cached_token_of_a_login() {
        let session =
            "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://a.invalid\n";
        let role = "sso_account_id = 123456789012\nsso_role_name = reader\n";
        for (file, expected) in [
            (format!("[profile p]\nsso_session = s\n{role}{session}"), "SSO token"),
            ("[profile p]\nlogin_session = arn:aws:iam::1:user/u\n".to_owned(), "login/cache"),
        ] {
            let cause = cause_of_profile(&file).await;
            assert!(cause.contains(expected) && !cause.contains("feature"), "{file}: {cause}");
        }
    }

    #[tokio::test]
    async fn loads_the_chain_again_after_a_failure() {
        static LOADS: AtomicU32 = AtomicU32::new(0);
        let credentials = ReloadingCredentials::new(|| {
            let is_first = LOADS.fetch_add(1, Ordering::Relaxed) == 0;
            defaults().credentials_provider(provide_credentials_fn(move || {
                std::future::ready(match is_first {
                    true => Err(CredentialsError::invalid_configuration("a wrong file")),
                    false => Ok(Credentials::new("id", "key", None, None, "test")),
                })
            }))
        });
        let error = credentials.provide_credentials().await.unwrap_err();
        assert_eq!(credentials_cause(&error), "a wrong file");
        for _ in 0..2 {
            credentials.provide_credentials().await.unwrap();
        }
        assert_eq!(LOADS.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn omits_what_a_service_says_besides_the_code() {
        #[derive(Debug, thiserror::Error)]
        #[error("service error")]
        struct Failed(#[source] Reason);
        #[derive(Debug, thiserror::Error)]
        #[error("ExpiredTokenException: it is 12:00:01")]
        struct Reason(#[source] ErrorMetadata);

        let metadata = ErrorMetadata::builder().custom("aws_request_id", "7").build();
        let error = CredentialsError::provider_error(Failed(Reason(metadata)));
        assert_eq!(credentials_cause(&error), "service error: ExpiredTokenException");
    }
}
