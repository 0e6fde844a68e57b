//! Whether the counters of a gateway can be what the deployment says of them.

use jiff::civil::Date;

use crate::domain::counting::PERSONS_MAX;
use crate::domain::document::{Place, Problems};
use crate::domain::name::GatewayId;
use crate::domain::peer::Peer;
use crate::domain::policy::{Counted, Holder, Per, PolicySet, Regime};

use super::read::{Declared, DeclaredPeer};

/// The counters of this gateway fit into its memory, and are not used up by what they cannot stop. `place`: where its id
/// stands.
pub(super) fn check(
    declared: &Declared,
    own: Holder<'_>,
    place: &Place,
    policy: &PolicySet,
    today: Date,
    problems: &Problems,
) {
    let peers: Vec<Peer> = declared.peers.iter().filter_map(DeclaredPeer::peer).collect();
    let holders = [own].into_iter().chain(peers.iter().map(Holder::from)).collect();
    let kept = Kept { by: own.id, place, holders, policy, today, problems };
    kept.check_memory();
    for (regime, counted) in policy.counted.get(own.id).into_iter().flatten() {
        let Some(regime) = policy.regimes.get(regime) else { continue };
        for counted in counted {
            kept.check_one(regime, counted);
        }
    }
}

/// The counters that this gateway keeps.
struct Kept<'k> {
    by: &'k GatewayId,
    place: &'k Place,
    /// Where the records whose persons it counts may be held: here and at its peers.
    holders: Vec<Holder<'k>>,
    policy: &'k PolicySet,
    today: Date,
    problems: &'k Problems,
}

impl Kept<'_> {
    /// Each counter may have to keep apart as many persons as its share, for the gateway itself and for every peer.
    fn check_memory(&self) {
        let counted = self.policy.counted.get(self.by).into_iter().flat_map(|regimes| regimes.values().flatten());
        let persons = counted.map(|counted| match counted.counter.per {
            Per::All => counted.share,
            Per::Country | Per::Recipient => counted.share.saturating_mul(self.holders.len() as u64),
        });
        let persons = persons.fold(0, u64::saturating_add);
        if persons > PERSONS_MAX {
            let message = format!("the counters of gateway `{}` may have to keep {persons} persons apart", self.by);
            let help = format!("a gateway keeps at most {PERSONS_MAX} apart: make the shares in [[counted]] smaller");
            self.problems.error_help(self.place, message, help);
        }
    }

    /// What uses a counter up although the counter does not let it go.
    fn check_one(&self, regime: &Regime, counted: &Counted) {
        let Self { by, policy, problems, .. } = *self;
        let counter = &counted.counter;
        let rule = regime.counter_rule(counter);
        let covered = policy.streams.values().filter(|plan| regime.covers_class(&policy.classes, &plan.classes));
        for plan in covered {
            let stream = &plan.stream.name;
            let past: Vec<String> = self
                .holders
                .iter()
                .flat_map(|holder| {
                    let shown = policy.shown_and_counted(Some(stream), *holder, by, self.today);
                    let rows = regime.rows_past(counter, holder.country, &shown);
                    rows.into_iter().map(|row| format!("{row} to {}", holder.id))
                })
                .collect();
            let ways = past.join(", ");
            if !plan.contributor_is_person {
                let uses_it_up = if past.is_empty() {
                    String::new()
                } else {
                    format!("; those that go by {ways} leave it without room for anybody")
                };
                let message = format!(
                    "`{rule}` lets no record of stream `{stream}` go: its contributors may be several persons{uses_it_up}"
                );
                let help = "if each contributor is one person, say `contributor_is_person = true` in the stream; otherwise \
                            vouch for the condition in [[shown]]";
                problems.warn(&plan.place, message, help);
                continue;
            }
            let others = policy.counted.iter().filter(|(other, _)| *other != by);
            // Parts of a law have one limit.
            let is_of_law = |id: &String| policy.regimes.get(id).is_some_and(|other| other.law == regime.law);
            let is_shared = others
                .flat_map(|(_, regimes)| regimes.iter().filter(|(id, _)| is_of_law(id)))
                .flat_map(|(_, counted)| counted)
                .any(|other| other.counter.condition == counter.condition);
            if is_shared && !past.is_empty() {
                let message = format!(
                    "records of stream `{stream}` go by {ways} too, which `{rule}` counts and does not stop: they may take \
                     gateway `{by}` beyond its share of {}, and the other gateways do not know",
                    counted.share
                );
                let help = "give this gateway a share that its other rows cannot exceed, or let one gateway alone keep the \
                            counter";
                problems.warn(self.place, message, help);
            }
        }
    }
}
