#include "textflag.h"

// The kernel calls the handler with the signal's number in DI, on the signal stack of whichever thread it is; the address
// that it returns to is the restorer's.
TEXT ·handler(SB),NOSPLIT|NOFRAME,$0-0
	MOVL	DI, CX
	DECL	CX
	MOVQ	$1, AX
	SHLQ	CX, AX
	LOCK
	ORQ	AX, ·pending(SB)
	RET

TEXT ·restorer(SB),NOSPLIT|NOFRAME,$0-0
	MOVL	$15, AX	// rt_sigreturn
	SYSCALL
	INT	$3

// func handlers() (handler, back uintptr)
TEXT ·handlers(SB),NOSPLIT,$0-16
	LEAQ	·handler(SB), AX
	MOVQ	AX, handler+0(FP)
	LEAQ	·restorer(SB), AX
	MOVQ	AX, back+8(FP)
	RET
