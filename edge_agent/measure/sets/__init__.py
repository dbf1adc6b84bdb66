"""Question files with gold answers: the forms of published sets, their own grading rules, and recorded answers of a cloud.

`loading` is the way in. It reads a file to rows (`raw_rows`), a row by its form (`forms`), and its gold answer (`gold`), into
`Labelled` questions. `grading` says whether an answer is right, `recorded` reads what a cloud once answered.
"""
