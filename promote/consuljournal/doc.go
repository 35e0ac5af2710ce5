// Package consuljournal keeps a promote.Journal and its promote.Owners in Consul: for Promoters on
// several machines.
//
// Below the prefix are, for each cluster, "heads/<cluster>" with the number and the chain of its
// last entry and "entries/<cluster>/<number>" with promote.Entry.Record; the entries for all
// clusters have "-" for a name; "trimmed/<cluster>" is the number of the last entry that Trim has
// removed. "tail" names the newest entry, and "owners/<owner>" is held by the session of an owner
// that lives. An append is one transaction: it compares and sets the head, creates the entry, and
// sets the tail. Entry.At is Consul's index of the entry.
//
// Comparisons read in Consul's consistent mode, so a leader that has lost the others acknowledges
// nothing. Consul restored from a snapshot sets the journal back: the entries since are lost, and a
// Promoter that has read them answers promote.ErrSetBack for their clusters until a new one takes
// its place.
//
// Consul holds every entry in memory and in each of its snapshots, about 600 bytes for one, and
// takes no request above 512 KiB: a record of up to 380 KiB, as it is sent in base64.
// promote.Promoter.Archive moves older entries out of it. A token needs
// key_prefix "<prefix>" with policy "write", and for Owners also session_prefix "" with policy
// "write".
package consuljournal
