use bailiwick::scoring::Scorer;
use bailiwick::domain::batch::Batch;

fn score(scorer: &mut Scorer, undecided: &Batch) {
    let _ = scorer.score(&[undecided]);
}

fn main() {}
