package sbom

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// PredicateType is the type of a Document as the predicate of an in-toto statement.
const PredicateType = "https://spdx.dev/Document"

// Image is the image that a Document is about.
type Image struct {
	// Name is the repository, registry included.
	Name string
	// Digest of its manifest, "sha256:…".
	Digest string
	// Created is the time of the document, so that the same image has the same one.
	Created time.Time
	// Unread are files that have packages which are not in the document.
	Unread []string
}

// Document is an SPDX 2.3 document (spdx.github.io/spdx-spec/v2.3), as JSON.
type Document struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	Comment           string         `json:"comment,omitempty"`
	CreationInfo      creationInfo   `json:"creationInfo"`
	Packages          []spdxPackage  `json:"packages"`
	Relationships     []relationship `json:"relationships"`
}

type creationInfo struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	SPDXID           string        `json:"SPDXID"`
	Name             string        `json:"name"`
	VersionInfo      string        `json:"versionInfo,omitempty"`
	Purpose          string        `json:"primaryPackagePurpose,omitempty"`
	DownloadLocation string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	SourceInfo       string        `json:"sourceInfo,omitempty"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	CopyrightText    string        `json:"copyrightText"`
	Checksums        []checksum    `json:"checksums,omitempty"`
	ExternalRefs     []externalRef `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const unknown = "NOASSERTION"

// Describe returns the document of an image with the packages, in the order of Sort.
func Describe(img Image, packages []Package) Document {
	const imageID = "SPDXRef-Image"
	sum := img.Digest
	if len(sum) > len("sha256:") {
		sum = sum[len("sha256:"):]
	}
	d := Document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT",
		Name: img.Name + "@" + img.Digest,
		DocumentNamespace: "https://github.com/sluice-deploy/sluice/spdx/" + escape(img.Name) + "-" +
			sum,
		CreationInfo: creationInfo{img.Created.UTC().Format(time.RFC3339),
			[]string{"Tool: sluice-assemble"}},
		Packages: []spdxPackage{{SPDXID: imageID, Name: img.Name, VersionInfo: img.Digest,
			Purpose: "CONTAINER", DownloadLocation: unknown, LicenseConcluded: unknown,
			LicenseDeclared: unknown, CopyrightText: unknown,
			Checksums: []checksum{{"SHA256", sum}}}},
		Relationships: []relationship{{"SPDXRef-DOCUMENT", "DESCRIBES", imageID}},
	}
	for i, file := range img.Unread {
		if i == 0 {
			d.Comment = "The packages that these files name are missing here:"
		}
		d.Comment += " /" + file
	}
	for _, p := range Sort(packages) {
		purl := p.PURL()
		id := fmt.Sprintf("SPDXRef-Package-%.16x", sha256.Sum256([]byte(purl)))
		d.Packages = append(d.Packages, spdxPackage{SPDXID: id, Name: p.Name,
			VersionInfo: p.Version, DownloadLocation: unknown, SourceInfo: "named in /" + p.Path,
			LicenseConcluded: unknown, LicenseDeclared: declared(p.License),
			CopyrightText: unknown,
			ExternalRefs:  []externalRef{{"PACKAGE-MANAGER", "purl", purl}}})
		d.Relationships = append(d.Relationships, relationship{imageID, "CONTAINS", id})
	}
	return d
}

// identifier is a licence of SPDX or an operator.
var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+:-]*$`)

// declared returns a licence if it has the form of an SPDX expression: identifiers with operators
// between them. Packages write "BSD, see LICENSE" too.
func declared(license string) string {
	words := strings.Fields(strings.NewReplacer("(", " ", ")", " ").Replace(license))
	for i, word := range words {
		operator := word == "AND" || word == "OR" || word == "WITH"
		if operator != (i%2 == 1) || !identifier.MatchString(word) {
			return unknown
		}
	}
	if len(words)%2 == 0 {
		return unknown
	}
	return license
}
