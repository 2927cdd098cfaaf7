"""CSV files that users bring."""

import re
from pathlib import Path

import pytest

import search_spaces
from atom_nas.tables import read_architectures, read_reference, reference_csv
from reports.scores import RANKING_COLUMNS

SPACE = search_spaces.load("convnet")
A, B = "w32-d1-none-relu-avg", "w64-d2-batch-relu-max"


def file(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_reference_is_read_by_column_name(tmp_path: Path) -> None:
    path = file(tmp_path, "epochs, score, architecture", f"12, 91.5, {A}", "", " , ,", "  ", f"12,1e-3,{B}")
    assert read_reference(path, SPACE).scores == {A: 91.5, B: 0.001}


def test_identical_lines_count_once(tmp_path: Path) -> None:
    path = file(tmp_path, "architecture,score", f"{A},91.5", f"{A},91.50")
    assert read_reference(path, SPACE).scores == {A: 91.5}


def test_contradicting_lines_are_an_error(tmp_path: Path) -> None:
    path = file(tmp_path, "architecture,score", f"{A},91.5", f"{B},1", f"{A},90")
    with pytest.raises(ValueError, match=rf"line 4: {A} has the score 90.0 here and 91.5 earlier"):
        read_reference(path, SPACE)


@pytest.mark.parametrize("score", ["nan", "inf", "-inf", "high", "", "9_4", "\u0661\u0662"])
def test_a_score_must_be_a_finite_number(tmp_path: Path, score: str) -> None:
    path = file(tmp_path, "architecture,score", f"{A},1", f"{B},{score}")
    with pytest.raises(ValueError, match=rf"line 3: the score '{score}' is not a finite number"):
        read_reference(path, SPACE)


def test_a_listed_string_the_space_cannot_parse_is_named_with_its_line(tmp_path: Path) -> None:
    path = file(tmp_path, "architecture,score", f"{A},1", "w33-d1-none-relu-avg,2")
    with pytest.raises(ValueError, match=r"table\.csv, line 3: .*33"):
        read_architectures(path, SPACE)


def test_rows_of_a_reference_outside_the_space_are_counted_and_left_out(tmp_path: Path) -> None:
    path = file(tmp_path, "architecture,score", "resnet18,3", f"{A},1", "w33-d1-none-relu-avg,2", f"{B},2")
    table = read_reference(path, SPACE)
    assert (table.scores, table.foreign) == ({A: 1.0, B: 2.0}, 2)
    assert table.why_foreign is not None
    assert "line 2: 'resnet18'" in table.why_foreign
    narrowed = read_reference(path, search_spaces.load("convnet", width=[32]))
    assert (narrowed.scores, narrowed.foreign) == ({A: 1.0}, 3)


def test_a_reference_of_another_space_is_an_error(tmp_path: Path) -> None:
    path = file(tmp_path, "architecture,score", "resnet18,3", "w33-d1-none-relu-avg,2")
    with pytest.raises(ValueError, match=r"line 2: 'resnet18'.*; no other row is of the space 'convnet'"):
        read_reference(path, SPACE)


def test_a_missing_column_is_an_error(tmp_path: Path) -> None:
    path = file(tmp_path, "architecture,accuracy", f"{A},1")
    columns = "has no column '{}'; its columns are: architecture, accuracy"
    with pytest.raises(ValueError, match=f"{columns.format('score')}; name one by --reference-column$"):
        read_reference(path, SPACE)
    with pytest.raises(ValueError, match=f"{columns.format('loss')}; name one by --reference-column$"):
        read_reference(path, SPACE, "loss")
    with pytest.raises(ValueError, match=r"has no column 'architecture'; its columns are: score$"):
        read_reference(file(tmp_path, "score", "1"), SPACE)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_columns_that_are_not_separated_by_commas_are_told_so(tmp_path: Path, mark: str) -> None:
    path = file(tmp_path, f"architecture{mark}score", f"{A}{mark}1")
    with pytest.raises(
        ValueError, match=rf"separate them by commas, not by '{re.escape(repr(mark)[1:-1])}'$"
    ):
        read_reference(path, SPACE)
    with pytest.raises(ValueError, match="separate them by commas"):
        read_architectures(path, SPACE)


def test_the_scores_of_a_reports_own_ranking_are_no_reference(tmp_path: Path) -> None:
    """It would be said to agree with itself."""
    header = ",".join(("parameters", *RANKING_COLUMNS))
    path = file(tmp_path, header, f"9,1,{A},0.5,0.8,1,1,1,done,,", f"9,2,{B},0.4,,1,1,1,done,,")
    with pytest.raises(
        ValueError, match=r"'score' is what that search ranked by.* --reference-column reference$"
    ):
        read_reference(path, SPACE)
    assert read_architectures(path, SPACE).architectures == (A, B)
    assert read_reference(path, SPACE, "reference").scores == {A: 0.8}
    other = file(tmp_path, "rank,architecture,score,reference,notes", f"1,{A},0.5,Smith 2020,")
    assert read_reference(other, SPACE).scores == {A: 0.5}


def test_scores_may_stand_in_another_column(tmp_path: Path) -> None:
    path = file(tmp_path, "architecture,score,accuracy", f"{A},1,91.5", f"{B},,90")
    assert read_reference(path, SPACE, "accuracy").scores == {A: 91.5, B: 90.0}


@pytest.mark.parametrize("content", [b"", b"architecture,score\n", b"\xff\xfe\x00"])
def test_a_file_without_rows_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"table\.csv (has no column|holds no score|is not a CSV file)"):
        read_reference(tmp_path / "table.csv", SPACE)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a CSV file with the column architecture is needed"):
        read_architectures(tmp_path / "table.csv", SPACE)


def test_a_list_keeps_its_order_and_counts_duplicates(tmp_path: Path) -> None:
    listed = read_architectures(file(tmp_path, "\ufeffarchitecture", B, A, B, B), SPACE)
    assert listed.architectures == (B, A)
    assert listed.duplicates == 2


def test_an_empty_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lists no architecture"):
        read_architectures(file(tmp_path, "architecture"), SPACE)


def test_what_is_written_reads_back_to_the_bit(tmp_path: Path) -> None:
    scores = {A: 0.1 + 0.2, B: 1 / 3}
    (tmp_path / "out.csv").write_text(reference_csv(scores))
    assert read_reference(tmp_path / "out.csv", SPACE).scores == scores


def test_a_score_that_no_report_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 2: the score '-1e301' is out of range: at most 1e\+100"):
        read_reference(file(tmp_path, "architecture,score", f"{A},-1e301"), SPACE)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            (f'{A},1,"oops', f"{B},2,", "last,3,fine"),
            "cannot be read as a CSV file after line 1: unexpected end",
        ),
        ((f'{A},1,"fine" not',), "cannot be read as a CSV file after line 1: ',' expected"),
        ((f"{A},1,{'x' * 200_000}",), "after line 1: field larger than field limit"),
    ],
)
def test_quotes_that_swallow_lines_are_refused(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    path = file(tmp_path, "architecture,score,note", *lines)
    for read in (read_reference, read_architectures):
        with pytest.raises(ValueError, match=said) as caught:
            read(path, SPACE)
        assert len(str(caught.value)) < 400


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has two columns 'score': keep one"):
        read_reference(file(tmp_path, "architecture,score,score", f"{A},1,2"), SPACE)
    twice = file(tmp_path, "architecture,note,note", f"{A},1,2")
    assert read_architectures(twice, SPACE).architectures == (A,)


def test_line_breaks_in_quoted_cells_are_of_the_cell(tmp_path: Path) -> None:
    """As reports write reasons of several lines."""
    path = file(tmp_path, "architecture,score,reason", f'{A},1,"failed:', 'no memory"', f"{B},2,")
    assert read_reference(path, SPACE).scores == {A: 1.0, B: 2.0}
    assert read_architectures(path, SPACE).architectures == (A, B)


def test_a_cell_beyond_the_columns_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path, "architecture,score", f"{A},1,", f"{B},94,3")
    with pytest.raises(ValueError, match=r"line 3: 2 columns are named, and '3' stands in none of them"):
        read_reference(path, SPACE)


class Dashed:
    """A space whose names begin like a formula of a spreadsheet."""

    def parse(self, name: str) -> str:
        if not name.startswith("-"):
            raise ValueError(f"unknown name {name!r}")
        return name


def test_names_are_read_as_reports_mark_them(tmp_path: Path) -> None:
    path = file(tmp_path, "architecture", "'-w", "-x")
    assert read_architectures(path, Dashed()).architectures == ("-w", "-x")  # type: ignore[arg-type]
    path = file(tmp_path, "architecture", "'w")
    with pytest.raises(ValueError, match='unknown name "\'w"'):
        read_architectures(path, Dashed())  # type: ignore[arg-type]
