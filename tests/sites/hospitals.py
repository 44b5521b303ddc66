"""Three hospitals of the UCI heart disease data (Fed-Heart-Disease of FLamby), each a site."""

from pathlib import Path

SHARED = Path(__file__).parents[3] / "shared" / "data" / "heart_disease"
HOSPITALS = {
    "cleveland": "processed.cleveland.data",
    "hungarian": "processed.hungarian.data",
    "va": "processed.va.data",
}
NAMES = "[age, sex, cp, trestbps, chol, fbs, restecg, thalach, exang, oldpeak, slope, ca, thal, num]"
FEATURES = "[age, sex, cp, trestbps, chol, fbs, restecg, thalach, exang, oldpeak]"
TABLE = f"names: {NAMES}, features: {FEATURES}, label: num, label_above: 0, missing: mean"
PUBLIC = "processed.switzerland.data"
"""What every site has a copy of in runs that need public samples."""
WITH_PUBLIC = f"data.public={{dataset: {{table: {{path: public.csv, {TABLE}}}}}}}"
DATA = f"""
  root: "@root@"
  dataset: {{table: {{path: heart.csv, {TABLE}}}}}
  partition: {{by: iid}}
"""
SPEC = f"""
name: hospitals
seed: 3
rounds: 3
data:{DATA}
agents:
  - {{name: cleveland, site: cleveland, model: {{mlp: {{hidden: [8]}}}}}}
  - {{name: hungarian, site: hungarian, count: 2, model: {{mlp: {{hidden: [8]}}}}}}
  - {{name: va, site: va, model: {{mlp: {{hidden: [8]}}}}}}
recipe: fd
measure: {{control: none, metrics: [accuracy, cross_entropy]}}
engine:
  kind: sites
  store: @store@
  wait: 10s
  sites:
@keys@
"""
