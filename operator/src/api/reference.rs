//! Text of `docs/conditions.md`.

use super::condition_types::ReadyState;
use super::reasons::{Reason, Use};

const INTRODUCTION: &str = "\
<!-- Generated from operator/src/api/reasons.rs by `make generate`; do not edit. -->

# Conditions

The operator writes the state of a StreamNotifier to `status.conditions`. Each condition has a reason,
which is a fixed identifier, and a message. The message names the resource, the cause and the action. To
read both, run:

    kubectl describe streamnotifier NAME

The conditions follow [kstatus](https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus), so
`kubectl wait`, Helm, Flux and Argo CD understand them.

| type | when it is present | meaning of `True` |
|---|---|---|
| `Ready` | always | The operator is reading every open shard, or the notifier is suspended. |
| `Reconciling` | while it is `True` | The operator is starting the notifier, or is retrying after an error. No action is needed unless the reason asks for one. |
| `Stalled` | while it is `True` | The notifier cannot continue until you act. |
| `Degraded` | while it is `True` | Something needs to be fixed, but delivery continues. `Ready` does not depend on it. |
| `DataGap` | 24 hours, or until the spec changes | Records were lost before they were read. |

`Reconciling` and `Stalled` are never present together. The operator removes a problem from the conditions
once the problem is resolved. No restart is needed, unless another operator took over the checkpoint. While a
problem lasts, unread records stay in the stream for up to 24 hours, and the operator holds or retries
messages.
";

/// Returns the text of the page.
pub fn conditions_page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page += "
## Ready

`Reconciling` and `Stalled` have the same reason and message as `Ready`. If there are several problems, the
reason describes one of them, and the message lists all of them.

| reason | `Ready` | also `True` | meaning | action |
|---|---|---|---|---|
";
    for reason in Reason::ALL {
        let states: Vec<_> = reason.uses().iter().filter_map(ready_state).collect();
        let Some(first) = states.first() else { continue };
        let beside: Vec<_> = states.iter().filter_map(|state| state.companion()).collect();
        let beside: Vec<_> = beside.iter().map(|type_| format!("`{type_}`")).collect();
        let (status, beside) = (first.status(), beside.join(" or "));
        page += &row(*reason, &format!("`{status}` | {beside} | "));
    }
    page += "
## Degraded

The reason describes one problem, and the message lists all problems.

`ConnectionIdMissing` and `InvalidTtlUnit` remain for 10 minutes after the last lookup that found an invalid
row. The reasons that begin with `DeadLetterQueue` remain until a dead letter is sent.
";
    page += &table(Use::Degraded);
    page += "
## DataGap

The condition lasts for 24 hours after the last gap, or until you change the spec. With `onGap: Stop` it
lasts until you change the spec, and `Ready` is `False` with the reason `DataGap`.
";
    page += &table(Use::DataGap);
    page += "
## Events

The operator reports these reasons in Events of type `Warning`.
";
    page += &table(Use::Event);
    page
}

fn ready_state(use_: &Use) -> Option<ReadyState> {
    match use_ {
        Use::Ready(state) => Some(*state),
        Use::Degraded | Use::DataGap | Use::Event => None,
    }
}

/// Table of the reasons that appear in a condition or in Events.
fn table(use_: Use) -> String {
    let reasons = Reason::ALL.iter().filter(|reason| reason.uses().contains(&use_));
    let rows: String = reasons.map(|reason| row(*reason, "")).collect();
    format!("\n| reason | meaning | action |\n|---|---|---|\n{rows}")
}

fn row(reason: Reason, between: &str) -> String {
    let (name, meaning, action) = (reason.as_str(), reason.meaning(), reason.action());
    format!("| `{name}` | {between}{meaning} | {action} |\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_committed_page() {
        let committed = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/conditions.md"));
        assert!(conditions_page() == committed, "docs/conditions.md differs: run make generate");
    }

    #[test]
    fn lists_every_reason() {
        let page = conditions_page();
        for reason in Reason::ALL {
            assert!(page.contains(&format!("\n| `{}` | ", reason.as_str())), "{reason:?}");
        }
    }
}
