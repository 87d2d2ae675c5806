from tests.audit.attacks import masked
from tests.audit import scripted
from unlearn.audit.attacks import prompting as pr
from unlearn.progress import NO_PROGRESS
def go(tag):
    m=masked.base(); sc=masked.scene(m,attack_prompts=8)
    out=m.generate([r for t in pr.targets(sc) for r in list(pr._begun(m.tokenizer,sc,t))[5:6]],max_new_tokens=24); print(tag,out,[f.answer for f in sc.requests.facts])
def test_it():
    scripted.Scripted(scripted.knows)
    go("after scripted")
    assert 0
