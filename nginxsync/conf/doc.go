// Package conf reads an Nginx configuration tree without losing a byte of it and edits it by
// splices.
//
// The reader follows Nginx's own tokenizer: quotes only at the start of a token, "#" only at the
// start of a token, "${", the 4096-byte buffer, Lua blocks by Lua's rules. A file that was not
// edited is written back byte for byte; an edit replaces a byte span, and everything outside the
// edited spans keeps its comments, its spacing and its order.
//
// The caller's steps, in this order:
//
//   - give the tree as an fs.FS (os.DirFS, a zip archive, an fstest.MapFS) and the name of its main
//     file;
//   - ask for directives by path with Find, or walk them all with All: both step through includes
//     as Nginx does;
//   - collect changes in an Edit and take the changed files from it.
//
// For example, to double the keep-alive connections of every upstream:
//
//	tree, err := conf.Parse(os.DirFS("/etc/nginx"), "nginx.conf")
//	if err != nil {
//		return err // a *conf.Error with file, line and column
//	}
//	edit := tree.Edit()
//	for n := range tree.Find("http", "upstream", "keepalive") {
//		edit.ReplaceArgs(n.Directive, "64")
//	}
//	files, err := edit.Files()
//
// The package does not know which directives exist, how many arguments they take or where they may
// stand: that is the business of nginx -t. It does not expand variables.
package conf
