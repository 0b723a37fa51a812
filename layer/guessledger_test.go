package layer

import "testing"

func TestLedger(t *testing.T) {
	t.Parallel()
	b := new(ledger)
	if b.spend(near, nearSlack+1) || !b.spend(near, nearSlack) || b.spend(near, 1) {
		t.Errorf("slack of %d: %+v", nearSlack, b)
	}
	if n := b.allow(course); n != courseSlack-nearSlack || b.load(near) != 1 {
		t.Errorf("a reader on its course may have %d more", n)
	}
	b.used(1000)
	if n := b.allow(near); n != 1000*nearShare/100 {
		t.Errorf("after 1000 bytes: %d more", n)
	}
	b.repaid(nearSlack)
	if n := b.allow(near); n != nearSlack+(1000+nearSlack)*nearShare/100 || b.load(near) != 0 {
		t.Errorf("repaid: %d more", n)
	}
	if !b.spend(course, 10) {
		t.Error("nothing may be spent")
	}
	b.unspent(10)
	if b.open != 0 {
		t.Errorf("%d bytes open", b.open)
	}
}
